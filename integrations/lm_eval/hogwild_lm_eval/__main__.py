"""`python -m hogwild_lm_eval` is lm_eval's own command with the additional model `hogwild`."""

from lm_eval.__main__ import cli_evaluate

if __name__ == "__main__":
    cli_evaluate()
