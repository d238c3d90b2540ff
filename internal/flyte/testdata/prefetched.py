import os

import flyte
from flyte.app import AppEnvironment, ArtifactValue, RunOutput, Scaling
from flyteplugins.sglang import SGLangAppEnvironment as Env

REPO = "org/Small.1B"
COMMON = ["--context-length", "4096"]
MINUTES = 10

by_artifact = Env(
    name="small",
    model_id="small",
    model_path=ArtifactValue(name="Small-1B", type="directory"),
    stream_model=True,
    resources=flyte.Resources(gpu="L4:1"),
    scaling=Scaling(replicas=(0, 1), scaledown_after=MINUTES * 60),
    env_vars={"HF_HOME": "/data/${x}", "HF_TOKEN": os.environ["HUB_TOKEN"], "WHERE": os.getenv("REGION")},
    secrets=[flyte.Secret(key="hub-token", as_env_var="HUB"), "plain-key"],
    extra_args=COMMON + ["--random-seed", 7],
)

by_run = Env(
    name="by-run",
    model_id="by-run",
    model_hf_path="org/placeholder",
    speculative_config={"algorithm": "EAGLE3", "num_draft_tokens": 16, "speculative_token_map": "/m", "adaptive": True},
    draft_model_hf_path="org/draft",
    requires_auth=False,
)

if __name__ == "__main__":
    flyte.init_from_config()
    run = flyte.prefetch.hf_model(repo=REPO, hf_token_key=None)
    run.wait()
    flyte.serve(by_run.clone_with(name=by_run.name, model_path=RunOutput(type="directory", run_name=run.name), model_hf_path=None))
    flyte.serve(by_run.clone_with(name="second", model_id="second", model_hf_path="org/other", requires_auth=True))
