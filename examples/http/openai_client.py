"""The official OpenAI client against a running Inferneo: a chat, a stream, JSON that follows a schema.

  inferneo serve models/inferneo-story                 (in another terminal)
  pip install openai
  python examples/http/openai_client.py [URL]
"""
import json
import os
import sys

from openai import OpenAI


def main():
    port = os.environ.get("INFERNEO_PORT", "8000")
    url = sys.argv[1] if len(sys.argv) > 1 else f"http://127.0.0.1:{port}"
    client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("INFERNEO_API_KEY", "none"))
    model = client.models.list().data[0].id
    question = [{"role": "user", "content": "Tell me a story about a fox."}]

    print(f"== a chat with {model}")
    answer = client.chat.completions.create(model=model, messages=question, max_tokens=40, seed=1)
    print(answer.choices[0].message.content)
    print(f"   {answer.usage.completion_tokens} tokens, ended by {answer.choices[0].finish_reason}")

    print("\n== the same, as it comes")
    for chunk in client.chat.completions.create(model=model, messages=question, max_tokens=40, seed=1, stream=True):
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()

    print("\n== JSON that follows a schema, whatever the model knows")
    schema = {"type": "object", "properties": {"animal": {"enum": ["fox", "owl"]}, "is_clever": {"type": "boolean"}},
              "required": ["animal", "is_clever"], "additionalProperties": False}
    answer = client.chat.completions.create(
        model=model, messages=question, max_tokens=60, temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "animal", "schema": schema}})
    print(json.loads(answer.choices[0].message.content))


if __name__ == "__main__":
    main()
