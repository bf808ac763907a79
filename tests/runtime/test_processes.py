import jax
import pytest
from jax.experimental import multihost_utils

from mtl_jax.runtime import processes

SRUN = {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_LOCALID": "0", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}
MPIRUN = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}


@pytest.fixture
def calls(monkeypatch):
    """The arguments of each start of jax.distributed."""
    for row in processes.LAUNCHERS.values():
        for name in row.marks:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("JAX_LOCAL_DEVICE_IDS", raising=False)
    found = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **kwargs: found.append((*args, kwargs)))
    monkeypatch.setattr(multihost_utils, "sync_global_devices", lambda name: found.append("in step"))
    return found


def test_a_process_on_its_own_is_left_alone(calls, monkeypatch):
    processes.initialize()
    processes.initialize("host:1", 1, 0)
    monkeypatch.setenv("SLURM_NTASKS", "8")  # in the script of sbatch, which srun has not started
    processes.initialize()
    for name, value in (SRUN | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}).items():
        monkeypatch.setenv(name, value)
    processes.initialize()
    assert calls == []


def test_flags_say_who_belongs_together(calls):
    processes.initialize("host:1", 2, 1, heartbeat_timeout=7)
    timeouts = {"heartbeat_timeout_seconds": 7, "shutdown_timeout_seconds": 7}
    assert calls == [("host:1", 2, 1, None, timeouts), "in step"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (SRUN, (None, 2, 1, [0])),
        (SRUN | {"JAX_LOCAL_DEVICE_IDS": "0,1"}, (None, 2, 1, None)),
        (MPIRUN, (None, 4, 3, [1])),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2"}, (None, None, None, None)),
    ],
)
def test_launchers_say_it_too(calls, monkeypatch, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    processes.initialize()
    processes.initialize("host:1")
    assert [call[:4] for call in calls if call != "in step"] == [expected, ("host:1", *expected[1:])]


def test_what_is_missing_is_named(calls, monkeypatch):
    with pytest.raises(ValueError, match=r"--process_id is 0, but --coordinator_address, --num_processes is missing"):
        processes.initialize(process_id=0)
    with pytest.raises(ValueError, match=r"--process_id is 2 of --num_processes 2"):
        processes.initialize("host:1", 2, 2)
    for name, value in (SRUN | {"SLURM_PROCID": "one"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="SLURM_PROCID is 'one', expected a number"):
        processes.initialize()
    assert calls == []


def test_a_launcher_that_jax_does_not_know_is_told_of(calls, monkeypatch):
    def refuse(*args, **kwargs):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    for name, value in MPIRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"Open MPI starts several .* should be defined\. Give --coordinator_address"):
        processes.initialize()


def test_one_process_answers_itself():
    assert processes.first()
    assert processes.first_says(lambda: "yes") == "yes"
    done = []
    processes.on_first(lambda: done.append(1))
    assert done == [1]
    with pytest.raises(OSError, match="full"):
        processes.on_first(lambda: (_ for _ in ()).throw(OSError("full")))


def test_disagreements_name_the_processes():
    same = {"optim.lr": 0.1, "data.tasks": ["depth"]}
    assert processes.disagreements([same, dict(same), dict(same)]) == []
    other = {"optim.lr": 0.2, "jax": "0.9"}
    assert processes.disagreements([same, other]) == [
        "optim.lr is 0.1 in process 0, 0.2 in process 1",
        "data.tasks is ['depth'] in process 0, None in process 1",
        "jax is None in process 0, '0.9' in process 1",
    ]


def test_one_process_agrees_with_itself():
    processes.check_agreement("anything", {"a": object()})
