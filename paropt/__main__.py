"""``python -m paropt``."""

from paropt.cli.main import run

if __name__ == "__main__":
    run()
