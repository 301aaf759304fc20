"""The environment of a process tells where it runs; no such machine is needed."""

import pytest

from jaxguide.runtime import cluster
from jaxguide.runtime.cluster import Place

GKE = {"TPU_WORKER_ID": "2", "TPU_WORKER_HOSTNAMES": "run-0.run,run-1.run,run-2.run"}
SLURM = {
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_ID": "1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "gpu[03-04,07]-ib,cpu1",
    "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
}
POD = {"JOB_COMPLETION_INDEX": "3", "NUM_PROCESSES": "4"}
METADATA = {
    "worker-network-endpoints": "unknown:unknown:10.0.0.5,unknown:unknown:10.0.0.6",
    "agent-worker-number": "1",
    "tpu-env": "ACCELERATOR_TYPE: 'v4-16'\nNODE_ID: 'pod'\n",
}
SLICES = "MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"
SLICES += "MEGASCALE_COORDINATOR_ADDRESS: '10.0.0.1:8080'\n"


def find(environ, metadata=None, host="run-host-0-3.run.default.svc.cluster.local"):
    asked = {} if metadata is None else metadata
    return cluster.find(
        environ,
        attribute=asked.get,
        host=lambda: host,
        has_tpu=lambda: metadata is not None,
    )


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},  # Colab
        GKE | {"JAX_PLATFORMS": "cpu"},
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # no srun
        SLURM | {"SLURM_STEP_NUM_TASKS": "1"},
        {"JOB_COMPLETION_INDEX": "1"},
        POD | {"NUM_PROCESSES": "1"},
    ],
)
def test_one_process_is_alone(environ):
    assert find(environ) is None


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        (GKE, Place("TPU on GKE", "run-0.run:8476", 3, 2)),
        (
            GKE | {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"},
            Place("TPU on GKE", "run-0.run:8476", 6, 5),
        ),
        (SLURM, Place("Slurm", "gpu03-ib:61442", 4, 3)),
        (
            POD,
            Place(
                "Kubernetes", "run-host-0-0.run.default.svc.cluster.local:8476", 4, 3
            ),
        ),
    ],
)
def test_the_environment_tells(environ, wanted):
    assert find(environ) == wanted


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, Place("TPU VM", "10.0.0.5:8476", 2, 1)),
        ({"worker-network-endpoints": "a,b"}, Place("TPU VM", "a:8476", 2, 1)),
        ({"tpu-env": SLICES}, Place("TPU VM", "10.0.0.1:8476", 4, 3)),
        ({"worker-network-endpoints": "unknown:unknown:10.0.0.5"}, None),
        ({"worker-network-endpoints": None}, None),
    ],
)
def test_the_metadata_of_a_tpu_vm_tell(changes, wanted):
    assert find({}, METADATA | changes) == wanted
    assert find({"TPU_SKIP_MDS_QUERY": "1"}, METADATA | changes) is None


@pytest.mark.parametrize(
    ("changes", "devices"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x2)", "SLURM_LOCALID": "5"}, (5,)),
        ({"SLURM_STEP_TASKS_PER_NODE": "8", "CUDA_VISIBLE_DEVICES": "3"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "2", "CUDA_VISIBLE_DEVICES": "0,1"}, (0,)),
        ({"SLURM_STEP_TASKS_PER_NODE": "1"}, None),
    ],
)
def test_tasks_on_one_node_share_its_devices(changes, devices):
    found = find(SLURM | changes)
    assert found is not None and found.devices == devices


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        (SLURM | {"SLURM_PROCID": "4"}, "got process_id=4, num_processes=4"),
        (SLURM | {"SLURM_PROCID": "two"}, "whole number in the variable SLURM_PROCID"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "many"}, "got SLURM_STEP_NUM_TASKS='many'"),
        (SLURM | {"SLURM_STEP_NODELIST": ""}, "list of nodes in the variable SLURM"),
        ({k: SLURM[k] for k in ("SLURM_STEP_NUM_TASKS",)}, "got SLURM_STEP_NODELIST="),
        (SLURM | {"SLURM_JOB_ID": "-3"}, "got SLURM_JOB_ID='-3'"),
        (POD | {"NUM_PROCESSES": "4.0"}, "got NUM_PROCESSES='4.0'"),
        (GKE | {"TPU_WORKER_ID": "first"}, "got TPU_WORKER_ID='first'"),
        (GKE | {"MEGASCALE_NUM_SLICES": "x"}, "got MEGASCALE_NUM_SLICES='x'"),
        (
            POD | {"JOB_COMPLETION_INDEX": "2"},
            "need a pod called NAME-2.SUBDOMAIN, got",
        ),
    ],
)
def test_an_environment_that_contradicts_itself_is_refused(environ, line):
    with pytest.raises(ValueError, match=line):
        find(environ)


@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        (("somewhere", 2, 0), "got coordinator='somewhere'"),
        (("a:b", 2, 0), "got coordinator='a:b'"),
        (("localhost:99999999", 2, 0), "got coordinator='localhost:99999999'"),
        (("a:0", 2, 0), "got coordinator='a:0'"),
        (("a:\u00b2", 2, 0), "need ADDRESS:PORT"),
        (("a:1", 2, -1), "got process_id=-1, num_processes=2"),
        (("a:1", 2, 2), "got process_id=2, num_processes=2"),
    ],
)
def test_flags_need_an_address_and_a_number(numbers, line):
    with pytest.raises(ValueError, match=line):
        cluster.from_flags(*numbers)


def test_a_place_says_what_it_is_in_one_line():
    assert str(find(GKE)) == (
        "hosts: process 2 of 3, found by TPU on GKE, coordinator run-0.run:8476"
    )
