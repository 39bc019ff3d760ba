#!/usr/bin/env python3
"""The same function as a competent developer would write it with boto3, to measure Curfew against.

The Lambda loop at the end is as small as possible: AWS's own, awslambdaric, imports more and would only slow it down.
"""

import http.client
import json
import os

import boto3
from botocore.config import Config

BATCH = 50

# Created once per process, outside the handler, as AWS advises.
ec2 = boto3.client("ec2", config=Config(retries={"mode": "standard"}))


def handler(event):
    action = event["action"]
    state = {"stop": "running", "start": "stopped"}[action]
    switch = {"stop": ec2.stop_instances, "start": ec2.start_instances}[action]
    filters = [{"Name": "instance-state-name", "Values": [state]}]
    for key, values in event["tags"].items():
        filters.append({"Name": f"tag:{key}", "Values": values if isinstance(values, list) else [values]})

    pages = ec2.get_paginator("describe_instances").paginate(Filters=filters, PaginationConfig={"PageSize": 1000})
    ids = [
        instance["InstanceId"]
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]
    changed = 0
    for at in range(0, len(ids), BATCH):
        answer = switch(InstanceIds=ids[at : at + BATCH])
        changed += len(answer["StoppingInstances" if action == "stop" else "StartingInstances"])
    summary = {"matched": len(ids), "changed": changed}
    print(json.dumps({"action": action, "summary": summary}))
    return {"summary": summary}


def serve():
    lambda_ = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])

    def call(method, path, body=None):
        lambda_.request(method, f"/2018-06-01/runtime/invocation/{path}", body)
        answer = lambda_.getresponse()
        return answer.headers, answer.read()

    while True:
        headers, event = call("GET", "next")
        request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        try:
            call("POST", f"{request_id}/response", json.dumps(handler(json.loads(event))))
        except Exception as error:
            problem = {"errorType": type(error).__name__, "errorMessage": str(error)}
            call("POST", f"{request_id}/error", json.dumps(problem))


serve()
