"""A backend in another process that replies in the manner its arguments name, for the tests.

It is started hundreds of times: what it imports is little.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MANNER, *MORE = sys.argv[1:]
CLAIM = {"renormalize": [None, {"eps": 0, "floor": 0, "order": 1}]}


def array(dtype: str, shape: list[int], values: list[Any]) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "values": values}


def hello(request: dict[str, Any]) -> dict[str, Any]:
    name = "speaker" if request["device"] == "cpu" else f"speaker on {request['device']}"
    said: dict[str, Any] = {"protocol": 1, "name": name, "capabilities": {"claims": [CLAIM]}}
    match MANNER:
        case "waits":
            time.sleep(600)
        case "dumb":
            sys.exit("no room")
        case "version-9":
            said["protocol"] = 9
        case "version-0":
            said["protocol"] = 0
        case "version-2-of-its-own":
            said = {"protocol": 2, "who": "speaker"}
        case "version-in-words":
            said["protocol"] = "1"
        case "nearly-an-axis":
            said["capabilities"] = {"claims": [{"scor": ["softmax"]}]}
        case "unknown-limit":
            said["capabilities"] = {"limits": {"max_expert": 8}}
        case "worded-scale":
            said["capabilities"] = {"claims": [{"scale": ["two"]}]}
        case "one-claim":
            said["capabilities"] = {"claims": {"score": ["softmax"]}}
        case "no-rule":
            said["capabilities"] = {"claims": [{"renormalize": [True]}]}
        case "nameless":
            said["name"] = ""
        case "unprintable":
            said["name"] = "two\nlines"
        case "refuses-hello":
            return {"error": "no such device"}
        case "no-capabilities":
            del said["capabilities"]
        case "unknown-axis":
            said["capabilities"] = {"claims": [{"colour": ["red"]}]}
        case "unknown-score":
            said["capabilities"] = {"claims": [{"score": ["softmx"]}]}
        case "bare-score":
            said["capabilities"] = {"claims": [{"score": "softmax"}]}
        case "unknown-dtype":
            said["capabilities"] = {"dtypes": ["float8"]}
        case "no-hello":
            return {}
    return {"hello": said}


def routing(request: dict[str, Any]) -> dict[str, Any]:
    """Choose the first K experts, and hand the hidden states back for logits."""
    config, hidden = request["config"], request["inputs"]["hidden"]
    tokens, top_k = hidden["shape"][0], config["top_k"]
    dtype = MORE[0] if MANNER == "dtype" else "float32"
    answer = {
        "weights": array(dtype, [tokens, top_k], [1 / top_k] * (tokens * top_k)),
        "expert_ids": array("int64", [tokens, top_k], list(range(top_k)) * tokens),
    }
    if MANNER == "echo":
        answer["logits"] = array("float32", hidden["shape"], hidden["values"])
    return answer


def say(text: str) -> None:
    print(text, flush=True)


def route(request: dict[str, Any]) -> dict[str, Any] | None:
    """Return the reply, or None where the manner has said all that there is to say."""
    answer = routing(request)
    match MANNER:
        case "unsupported":
            return {"unsupported": "not today"}
        case "error":
            return {"error": "no gate"}
        case "dies" | "dies-once":
            if MANNER == "dies" or not os.path.exists("died"):
                open("died", "w").close()
                print("about to fall", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGSEGV)
        case "exits":
            sys.exit(3)
        case "hangs-up":
            sys.exit()
        case "hangs":
            with open("speaker.pid", "w") as file:
                file.write(str(os.getpid()))
            time.sleep(600)
        case "leaks":
            kept = []
            while True:
                kept.append(b"x" * 2**25)
                time.sleep(0.05)
        case "garbage":
            return say("Hello, world")
        case "literal-nan":
            return say('{"id": 2, "routing": NaN}')
        case "half":
            print('{"id": 2, "rou', end="", flush=True)
            sys.exit()
        case "list":
            return say("[1, 2]")
        case "other-id":
            return {"id": 7, "routing": answer}
        case "twice":
            say(json.dumps({"id": request["id"], "routing": answer}))
        case "nothing-known":
            return {"answer": answer}
        case "lacks-ids":
            del answer["expert_ids"]
        case "extra":
            answer["colour"] = "red"
        case "vast":
            answer["weights"] = array("float32", [2**40, 2**40, 0], [])
        case "short":
            answer["weights"] = array("float32", [1, 1], [])
        case "text":
            answer["weights"] = array("float32", [1, 1], ["much"])
        case "float-ids":
            answer["expert_ids"] = array("int64", [1, 1], [0.5])
        case "huge-ids":
            answer["expert_ids"] = array("int32", [1, 1], [2**40])
        case "no-dtype":
            answer["weights"]["dtype"] = "float8"
    return {"routing": answer}


for line in sys.stdin:
    request = json.loads(line)
    reply = hello(request) if request["request"] == "hello" else route(request)
    if reply is not None:
        say(json.dumps({"id": request["id"], **reply}))
