"""Stop 1 of a push: HTTP in, a call of the Fabric out. The APIs on Flask, and the server under them.

In comes a request of a backend; out goes `Fabric.publish(Push(streams, body))`, which the logic node implements.
Nothing in here knows nodes or ZeroMQ.
"""
