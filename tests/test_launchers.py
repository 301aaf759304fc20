"""The launchers print what they would do; their manifests are what Kubernetes takes."""

import shlex
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parent.parent
TRAIN = ["python", "-m", "jaxguide.train", "--config", "configs/sit imagenet.py:XL/2"]
RULE = {
    "type": "object",
    "required": ["name", "action"],
    "additionalProperties": False,
    "properties": {
        "name": {"pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
        "action": {
            "enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]
        },
        "onJobFailureReasons": {
            "items": {
                "enum": [
                    *("BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes"),
                    *("MaxFailedIndexesExceeded", "PodFailurePolicy"),
                ]
            }
        },
        "targetReplicatedJobs": {"type": "array", "items": {"type": "string"}},
    },
}
# What is documented of JobSet v1alpha2, as far as it is used; Jobs have a schema.
JOBSET = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": {"required": ["name"]},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "failurePolicy": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "maxRestarts": {"type": "integer", "minimum": 0},
                        "restartStrategy": {"enum": ["Recreate", "BlockingRecreate"]},
                        "rules": {"type": "array", "items": RULE},
                    },
                },
                "replicatedJobs": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["name", "template"],
                        "additionalProperties": False,
                        "properties": {
                            "name": {"pattern": "^[a-z0-9-]+$"},
                            "replicas": {"type": "integer", "minimum": 0},
                            "template": {"required": ["spec"]},
                        },
                    },
                },
            },
        },
    },
}


def dry(script, *words, program=TRAIN, code=0):
    """The lines that a launcher prints with --dry-run."""
    command = ["bash", f"train/{script}", *words, "--dry-run", "--", *program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return (done.stdout if code == 0 else done.stderr).splitlines()


def test_a_rehearsal_gives_every_process_its_number():
    lines = [shlex.split(line) for line in dry("local_pod.sh", "2")]
    address = ["--coordinator", "127.0.0.1:PORT", "--num_processes", "2"]
    wanted = [[*TRAIN, *address, "--process_id", number] for number in ("0", "1")]
    assert lines == wanted


@pytest.mark.parametrize(
    ("codes", "wanted"), [("0 0", 0), ("75 3", 3), ("3 75", 3), ("75 75", 75)]
)
def test_a_rehearsal_ends_as_the_process_that_failed_by_itself(codes, wanted):
    """Whichever of them is seen to end first."""
    program = ["bash", "-c", 'codes=($0); exit "${codes[${!#}]}"', codes]
    launcher = ["bash", "train/local_pod.sh", "2", "--", *program]
    assert subprocess.run(launcher, cwd=ROOT, timeout=60).returncode == wanted


@pytest.mark.parametrize(
    ("action", "wanted"),
    [
        (
            ["create", "--type", "v5p-32", "--spot"],
            "create pod --accelerator-type=v5p-32 --version=v2-alpha-tpuv6e --spot",
        ),
        (["delete"], "delete pod --quiet"),
        (
            ["run"],
            "ssh pod --worker=all '--command=cd ~/jaxguide && PATH=~/venv/bin:$PATH "
            "python -m jaxguide.train --config configs/sit\\ imagenet.py:XL/2'",
        ),
    ],
)
def test_a_pod_slice_is_made_and_used_by_gcloud(action, wanted):
    (line,) = dry("tpu_vm.sh", *action, "--name", "pod", "--zone", "z")
    command = f"gcloud compute tpus tpu-vm {wanted} --zone=z"
    assert shlex.split(line) == shlex.split(command)


def test_every_host_of_a_slice_gets_the_last_commit_and_the_bucket():
    words = ["install", "--name", "pod", "--zone", "z", "--bucket", "mine"]
    pack, copy, remove, *setup = dry("tpu_vm.sh", *words)
    assert pack == "git archive --format=tar.gz --output=jaxguide.tar.gz HEAD"
    assert "scp jaxguide.tar.gz pod:jaxguide.tar.gz --worker=all" in copy
    assert remove == "rm jaxguide.tar.gz"
    assert "gcsfuse --implicit-dirs mine /mnt/bucket" in setup[-1]
    assert "jax[tpu]" in setup[-1] and "--worker=all" in setup[-1]


def test_a_queued_slice_starts_the_program_when_it_boots():
    words = ["--name", "run", "--zone", "z", "--bucket", "mine", "--spot"]
    lines = dry("queued.sh", *words)
    boot = [line for line in lines if line.startswith("# FOLDER/boot.sh: ")]
    assert any(shlex.join(TRAIN[:3]) in line and "--wait 600" in line for line in boot)
    assert "# FOLDER/boot.sh: while [ $code = 75 ]; do" in boot
    verbs = [line.split()[:5] for line in lines if not line.startswith("#")]
    queue = ["gcloud", "compute", "tpus", "queued-resources"]
    assert [*queue, "create"] in verbs and [*queue, "delete"] in verbs
    (create,) = (line for line in lines if "queued-resources create" in line)
    assert "--metadata-from-file=startup-script=FOLDER/boot.sh --spot" in create
    assert "--node-id=run" in create and "--runtime-version=" in create


def test_slurm_starts_one_process_per_node_and_requeues():
    command = ["bash", "train/slurm.sbatch", "--dry-run", *TRAIN]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert shlex.split(lines[1]) == ["srun", "--kill-on-bad-exit=0", *TRAIN]
    assert lines[3] == "scontrol requeue JOB"


def manifest(accelerator, program=TRAIN):
    words = ["--accelerator", accelerator, "--name", "run", "--image", "eu/jaxguide:1"]
    lines = dry("gke.sh", *words, "--bucket", "mine", program=program)
    first = lines.index("kubectl apply -f - <<'MANIFEST'")
    assert lines[0].startswith("git archive HEAD | docker build")
    return yaml.safe_load("\n".join(lines[first + 1 : lines.index("MANIFEST")]))


@pytest.mark.parametrize(
    ("accelerator", "resource"), [("tpu", "google.com/tpu"), ("gpu", "nvidia.com/gpu")]
)
def test_manifests_validate(accelerator, resource):
    program = [*TRAIN, "--config.columns=('a\"b\\',)"]
    found = manifest(accelerator, program)
    jsonschema.validate(found, JOBSET)
    (group,) = found["spec"]["replicatedJobs"]
    job = dict(apiVersion="batch/v1", kind="Job", metadata=dict(name="run"))
    job["spec"] = group["template"]["spec"]
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(job, version, strict=True)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == [*program, "--wait", "600"]
    assert container["image"] == "eu/jaxguide:1" and found["metadata"]["name"] == "run"
    assert pod["volumes"][-1]["csi"]["volumeAttributes"]["bucketName"] == "mine"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] > 1
    assert container["resources"]["limits"][resource] >= 4
    told = {entry["name"]: entry["value"] for entry in container.get("env", [])}
    if accelerator == "gpu":
        assert told == {"NUM_PROCESSES": str(job["spec"]["completions"])}


def test_a_wrong_manifest_is_found():
    found = manifest("tpu")
    found["spec"]["failurePolicy"]["restarts"] = 3
    with pytest.raises(jsonschema.ValidationError, match="restarts"):
        jsonschema.validate(found, JOBSET)


@pytest.mark.parametrize(
    ("script", "words", "line"),
    [
        ("local_pod.sh", [], "need the number of processes first, got '--dry-run'"),
        ("tpu_vm.sh", ["start"], "need create, install, run or delete, got 'start'"),
        ("tpu_vm.sh", ["run", "--name", "pod"], "need --zone VALUE, got none"),
        ("queued.sh", ["--nmae", "run"], "got --nmae. See --help."),
        ("gke.sh", ["--bucket"], "need --accelerator VALUE, got none"),
    ],
)
def test_a_mistake_is_one_line(script, words, line):
    (told,) = dry(script, *words, code=2)
    assert told.startswith(f"{script}: ") and line in told
