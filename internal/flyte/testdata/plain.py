"""An app as small as they come, with everything that is written out."""
import datetime

import flyte
import flyte.app
from flyteplugins.sglang import DEFAULT_SGLANG_IMAGE, SGLangAppEnvironment

image = DEFAULT_SGLANG_IMAGE

chat = SGLangAppEnvironment(
    name="chat-app",
    model_hf_path="org/Chat-8B",
    model_id="chat-8b",
    resources=flyte.Resources(cpu="4", memory="16Gi", gpu="L40s:4", disk="10Gi", shm="auto"),
    image=image,
    stream_model=True,  # has no effect without model_path
    scaling=flyte.app.Scaling(
        replicas=(0, 1),  # none when nobody asks
        metric=flyte.app.Scaling.Concurrency(16),
        scaledown_after=datetime.timedelta(minutes=5),
    ),
    timeouts=flyte.app.Timeouts(request=600),
    requires_auth=True,
    extra_args=["--tp", "4", "--max-model-len", "8192"],
)

embed = SGLangAppEnvironment(
    name="embed",
    model_path="/models/embed",
    model_id="embed",
    resources=flyte.Resources(cpu=(1, 2), memory="8Gi", gpu=flyte.GPU("A100 80G", 1)),
    scaling=flyte.app.Scaling(replicas=1),
    requires_auth=False,
    extra_args="--is-embedding --context-length 512 --chat-template '/a b'",
)
