"""The program. Monkey-patches before anything else is imported; nothing else in zim patches."""

from gevent import monkey

monkey.patch_all()

from zim.cli import main

if __name__ == "__main__":
    main()
