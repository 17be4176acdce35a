"""Lines of result files, as the service writes them for rows."""

import orjson


def answered(custom_id: str, text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    body = {"object": "chat.completion", "choices": [{**choice, "finish_reason": "stop"}]}
    response = {"status_code": 200, "request_id": "r", "body": body}
    line = {"id": "b", "custom_id": custom_id, "response": response, "error": None}
    return orjson.dumps(line) + b"\n"
