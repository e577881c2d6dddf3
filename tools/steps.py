"""Scripts one after the other, each as a command that can be typed as well."""

import shlex


def run(experiment, script, *settings):
    """Run a script as from the command line; gives the result of its main function."""
    arguments = [script, *(["with", *settings] if settings else [])]
    print("\n$ python", shlex.join(arguments), flush=True)
    return experiment.run_commandline(arguments).result
