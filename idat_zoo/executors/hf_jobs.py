"""Jobs of Hugging Face that train the passes of a study, whose folder lies in a bucket of the Hub.

A job sees nothing of this machine. It mounts the bucket's folder, and runs there the command that
the executor `print` prints. A call fetches what earlier jobs have finished, submits a job for each
pass that none trains, and ends. The jobs' labels say which folder and which runs they are about.
Free of torch.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from idat_zoo import files
from idat_zoo.errors import UsageError
from idat_zoo.executors.command import pass_words, thread_variables
from idat_zoo.executors.hf_jobs_options import HfJobsOptions
from idat_zoo.file_names import RESULT_FILE
from idat_zoo.hub.buckets import BucketFolder, list_files, read_files, write_files
from idat_zoo.hub.jobs import Job, Mount, Order, check_words, find_account, list_jobs, submit
from idat_zoo.study.failures import FAILURES_FILE
from idat_zoo.study.plan import PLAN_FILE, StudyPlan, has_plan
from idat_zoo.values import Frozen

STUDY_MOUNT, IMAGES_MOUNT = "/study", "/images"
"""Where a job sees the study's folder and the images."""
FOLDER_LABEL, STUDY_LABEL, PASS_LABEL, RUNS_LABEL = (
    f"idat-{what}" for what in ("folder", "study", "pass", "runs")
)
RECORD_FILE = "hf-jobs.json"
"""The file of a study's folder that names its bucket, and the accounts that have paid for jobs."""
DATA = {".csv", ".json", ".jsonl", ".safetensors", ".toml"}
"""The endings of the files of a finished run."""
STATE = (PLAN_FILE, FAILURES_FILE, RECORD_FILE)
"""The files of a study's folder that are the same here and in the bucket."""


class _Record(Frozen):
    """The bucket's folder of a study, and the accounts that have paid for its jobs."""

    bucket: str
    accounts: tuple[str, ...]

    @classmethod
    def read(cls, content: bytes) -> "_Record | None":
        """A record of this version; None for anything else."""
        try:
            return cls.model_validate_json(content)
        except ValidationError:
            return None


@dataclass(frozen=True, kw_only=True)
class PassJobs:
    """The jobs of a pass: the one that trains it, if any, and the last one that has ended."""

    active: Job | None
    ended: Job | None


class StudyOnHub:
    """A study whose folder on this machine has a counterpart in a bucket."""

    def __init__(self, name: str, folder: Path, options: HfJobsOptions) -> None:
        """Ask the Hub who pays, which jobs there are, and what the bucket holds.

        The files are listed after the jobs, so that what a job has written counts once it has
        ended. Raises: HubError.
        """
        self.name, self.folder, self.options = name, folder, options
        bucket, below = _split(options.bucket)
        self.place = BucketFolder(bucket=bucket, folder=below or name)
        self.account = find_account(options.namespace)
        there = list_files(self.place)
        state = {file: there[file] for file in STATE if file in there}
        self._state = read_files(self.place, state) if state else {}
        record = _Record.read(self._state.get(RECORD_FILE, b""))
        self._accounts = sorted({self.account, *(record.accounts if record else ())})
        self._label = _label(str(self.place))
        self._jobs: dict[str, Job] = {}
        self.add_new_jobs()
        self._there = list_files(self.place)

    def fetch_plan(self) -> None:
        """Take over the plan of the bucket where none is here. Raises: RunFolderError."""
        if PLAN_FILE in self._state and not has_plan(self.folder):
            files.write_whole(self.folder / PLAN_FILE, self._state[PLAN_FILE])

    def fetch_runs(self, plan: StudyPlan) -> int:
        """Copy the runs that are finished in the bucket and not here; how many.

        The count of failures is copied too. Raises: HubError, RunFolderError.
        """
        if FAILURES_FILE in self._state:
            files.write_whole(self.folder / FAILURES_FILE, self._state[FAILURES_FILE])
        finished = [
            run
            for run in plan.runs
            if f"{run}/{RESULT_FILE}" in self._there
            and not (self.folder / run / RESULT_FILE).is_file()
        ]
        for run in finished:
            own = {
                name: file
                for name, file in self._there.items()
                if name.startswith(f"{run}/") and _is_data(name)
            }
            contents = read_files(self.place, own)
            for name in sorted(contents, key=lambda name: name == f"{run}/{RESULT_FILE}"):
                files.write_whole(self.folder / name, contents[name])
        return len(finished)

    def store(self, *, replan: bool) -> None:
        """Write to the bucket what jobs need, as it is here.

        Raises: HubError; UsageError if the bucket holds another plan, unless `replan` accepts that.
        """
        record = _Record(bucket=str(self.place), accounts=tuple(self._accounts))
        document = files.dump_json(record.model_dump(mode="json"))
        files.write_whole(self.folder / RECORD_FILE, document)
        here = {
            name: (self.folder / name).read_bytes()
            for name in STATE
            if (self.folder / name).is_file()
        }
        there = self._state.get(PLAN_FILE)
        if there is not None and there != here[PLAN_FILE] and not replan:
            raise UsageError(
                f"'{self.place}' holds another plan of study '{self.name}' than '{self.folder}'.",
                hint="bucket=OWNER/NAME/FOLDER names another folder; --replan replaces the plan.",
            )
        changed = {name: own for name, own in here.items() if self._state.get(name) != own}
        if changed:
            write_files(self.place, changed)

    def add_new_jobs(self) -> None:
        """List the jobs; those that were listed before keep their stage. Raises: HubError."""
        for account in self._accounts:
            new = {job.id: job for job in list_jobs(account, self._label)}
            self._jobs = new | self._jobs

    def jobs_of(self, plan: StudyPlan, number: int) -> PassJobs:
        """The jobs of pass `number` of a plan."""
        runs = _digest(*plan.passes[number - 1])
        own = [job for job in self._jobs.values() if job.labels.get(RUNS_LABEL) == runs]
        return PassJobs(
            active=next((job for job in own if not job.has_ended), None),
            ended=next((job for job in own if job.has_ended), None),
        )

    def check_jobs(self, plan: StudyPlan) -> None:
        """Raises: UsageError while a job trains a pass that the plan does not have."""
        known = {_digest(*own) for own in plan.passes}
        for job in self._jobs.values():
            if not job.has_ended and job.labels.get(RUNS_LABEL) not in known:
                raise UsageError(
                    f"job {job.id} trains runs of an earlier plan of study '{self.name}'.",
                    hint=f"Wait for it, or `hf jobs cancel {job.id}`.",
                )

    def order(
        self, plan: StudyPlan, number: int, words: Sequence[str], *, with_token: bool
    ) -> Order:
        """The order of a job for pass `number`, with further words of `idat study`.

        Raises: UsageError for words or a package that would not reach the job.
        """
        options, words = self.options, ["--device", self.options.device, *words]
        mounts = [Mount(bucket=self.place.bucket, folder=self.place.folder, path=STUDY_MOUNT)]
        if options.images is not None:
            bucket, below = _split(options.images)
            mounts.append(Mount(bucket=bucket, folder=below, path=IMAGES_MOUNT, read_only=True))
            words += ["--data-dir", IMAGES_MOUNT]
        package = options.package or f"idat-zoo=={version('idat-zoo')}"
        if Path(package).exists():
            raise UsageError(f"package '{package}' is on this machine, which a job does not see.")
        command = pass_words(self.name, number, STUDY_MOUNT, words)
        check_words(command)
        return Order(
            name=re.sub(r"[^A-Za-z0-9_-]", "-", f"idat-{self.name}-{number}"),
            package=package,
            words=command,
            flavor=options.flavor,
            timeout=options.timeout,
            mounts=mounts,
            labels={
                FOLDER_LABEL: self._label[1],
                STUDY_LABEL: self.name,
                PASS_LABEL: str(number),
                RUNS_LABEL: _digest(*plan.passes[number - 1]),
            },
            variables=thread_variables(options.cpus),
            with_token=with_token,
        )

    def submit(self, order: Order) -> Job:
        """Submit a job. Raises: HubError."""
        return submit(order, self.account)


def described_jobs(folder: Path, plan: StudyPlan) -> dict[str, str]:
    """The jobs that have not ended, in words, by the absolute folders of the runs they train.

    The Hub is asked only where a study's folder names its bucket. Raises: HubError.
    """
    try:
        record = _Record.read((folder / RECORD_FILE).read_bytes())
    except FileNotFoundError:
        return {}
    if record is None:
        return {}
    runs = {_digest(*own): own for own in plan.passes}
    return {
        str((folder / run).resolve()): f"job {job.id} of Hugging Face ({job.stage.lower()})"
        for account in record.accounts
        for job in list_jobs(account, _label(record.bucket))
        if not job.has_ended
        for run in runs.get(job.labels.get(RUNS_LABEL, ""), ())
    }


def _label(place: str) -> tuple[str, str]:
    """The label of all jobs of a study's folder."""
    return FOLDER_LABEL, _digest(place)


def _is_data(name: str) -> bool:
    """Whether a file of a run folder is fetched: data, that stays in its folder."""
    path = Path(name)
    return path.suffix in DATA and ".." not in path.parts and not path.name.startswith(".")


def _split(place: str) -> tuple[str, str]:
    """`OWNER/NAME` and the folder in it, or ''."""
    owner, name, *below = place.split("/")
    return f"{owner}/{name}", "/".join(below)


def _digest(*words: str) -> str:
    """A short name of words, of characters that labels may have."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
