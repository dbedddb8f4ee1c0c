"""The program. Monkey-patches before anything else is imported; nothing else in zim patches."""

from gevent import config, monkey

config.track_greenlet_tree = False  # it keeps the spawning stack with every greenlet
monkey.patch_all()

from zim.cli import main

if __name__ == "__main__":
    main()
