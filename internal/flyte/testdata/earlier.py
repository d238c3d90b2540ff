"""The plugin's earlier name for model_path, its router, and numbers where texts belong."""
import flyte
import flyte.app
import flyte.io
from flyteplugins.sglang import SGLangAppEnvironment

run = flyte.prefetch.hf_model(repo="org/Chat-8B")

early = SGLangAppEnvironment(
    name="early",
    model=flyte.app.RunOutput(type=flyte.io.Dir, run_name=run.name),
    model_id="early",
    resources=flyte.Resources(gpu="L40s:1"),
)

routed = SGLangAppEnvironment(
    name="routed",
    model_path="/models/routed",
    model_id="routed",
    router=True,
    extra_args=["--dp-size", "4", "--router-policy", "cache_aware", "--tp-size", "1"],
    env_vars={"WORKERS": 2},
    resources=flyte.Resources(gpu="L40s:4"),
    scaling=flyte.app.Scaling(replicas=(1, 1)),
)
