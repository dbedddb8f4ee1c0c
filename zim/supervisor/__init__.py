"""Runs the processes of a topology: starts them, watches, restarts, and stops them in the order of the data.

Nothing is imported here: `zim status` and others want the control socket alone, and not what serves HTTP.
"""
