# Everything here takes running it, or has no counterpart.
import flyte
from flyteplugins.sglang import SGLangAppEnvironment

options = {"interruptible": True}


def pick():
    return "org/a"


GPUS = "L4:1"
GPUS = GPUS + ""

app = SGLangAppEnvironment(
    name=f"app-{pick()}",
    model_id="a" if pick() else "b",
    model_path=flyte.app.RunOutput(type="directory", task_name="cache.main"),
    resources=flyte.Resources(gpu=GPUS, cpu=cores(), memory="4Gi"),
    scaling=make_scaling(),
    env_vars=dict(A="1"),
    secrets=flyte.Secret(key=pick()),
    extra_args=["--context-length", str(8 * 1024), *more],
    requires_auth=bool(1),
    port=8080,
    image=flyte.Image.from_debian_base().with_pip_packages("sglang"),
    router=True,
    domain=flyte.app.Domain(subdomain="x"),
    brand_new="y",
    timeouts=flyte.app.Timeouts(request=flyte.something),
    **options,
)

remote = SGLangAppEnvironment(name="remote", model_id="remote", model_path="s3://bucket/weights", stream_model=True)
