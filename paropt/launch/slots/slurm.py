"""``launch --on slurm``: an array whose jobs are slots. Slurm queues, preempts and requeues them.

The script is plain: it can be printed, read, changed and given to ``sbatch`` by hand.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

from paropt.errors import ParoptError
from paropt.files import readable
from paropt.launch.slots.elsewhere import Elsewhere

WARNING_SECONDS = 90  # before a job's time is over: a trial is handed back within 20
SBATCH_SECONDS = 60

SCRIPT = """\
#!/bin/bash
# {slots} of study {study}: each job of this array is one; made by `paropt launch --on slurm`
#SBATCH --job-name=paropt-{name}
#SBATCH --array=0-{last}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cpus}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
#SBATCH --signal=B:USR1@{warning}
{more}
# the database's password: PGPASSWORD where sbatch is called, or ~/.pgpass on the nodes
export PAROPT_FIRST_SLOT=$SLURM_ARRAY_TASK_ID PAROPT_CORES=${{SLURM_CPUS_PER_TASK:-1}}
trap 'again=yes; kill -USR1 $!' USR1  # its time is nearly over: hand back, queue again
trap 'sleep 1; kill -USR1 $!' TERM    # cancelled or preempted: Slurm has told all processes
{command} &
worker=$!
while kill -0 $worker 2>/dev/null; do wait $worker; done
wait $worker; code=$?
[ -z "$again" ] || scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
exit $code
"""


def script(study: str, words: Sequence[str], what: Elsewhere, sbatch: str) -> str:
    """The batch script; ``words`` are those after ``paropt``, ``sbatch`` the site's own options.

    Raises:
        ParoptError: the options are of more than one line, or cannot be read as words.
    """
    try:
        shlex.split(sbatch)
    except ValueError as error:
        raise ParoptError(f"--sbatch {sbatch!r}: {error}") from None
    if "\n" in sbatch:
        raise ParoptError("--sbatch is one line of sbatch's options")
    more = [f"#SBATCH --gpus-per-task={_gpus(what)}"] if what.gpus else []
    more += [f"#SBATCH {sbatch}"] if sbatch.strip() else []
    return SCRIPT.format(
        slots=f"{what.slots} slot{'s' * (what.slots > 1)}",
        study=readable(study),
        name=readable(study, 40),
        last=what.slots - 1,
        cpus=what.cpus,
        warning=WARNING_SECONDS,
        more="\n".join(more),
        command=shlex.join([sys.executable, "-m", "paropt", *words]),
    )


def _gpus(what: Elsewhere) -> int:
    if what.gpus != int(what.gpus):
        raise ParoptError(
            f"Slurm gives whole GPUs, not {what.gpus:g} of one, to --gpus-per-slot; share one by "
            "your site's shards or MPS in --sbatch '--gres=…', or use --per-device in a worker"
        )
    return int(what.gpus)


def submit(text: str, secret: Mapping[str, str]) -> str:
    """Hand the script to ``sbatch``; the number of the job.

    ``secret`` goes with the environment, which Slurm passes on, and not into the script.

    Raises:
        ParoptError: there is no Slurm here, or it refuses.
    """
    program = shutil.which("sbatch")
    if program is None:
        raise ParoptError(
            "there is no sbatch on this machine; add --print-script, and give what is printed to "
            "sbatch where Slurm is"
        )
    try:
        done = subprocess.run(
            [program, "--parsable"],
            input=text,
            env={**os.environ, **secret},
            capture_output=True,
            text=True,
            timeout=SBATCH_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ParoptError(f"sbatch said nothing for {SBATCH_SECONDS} s") from None
    if done.returncode:
        said = next(iter(done.stderr.strip().splitlines()), "no reason given")
        raise ParoptError(f"sbatch refuses the script: {said.removeprefix('sbatch: ')}")
    return done.stdout.strip().partition(";")[0]
