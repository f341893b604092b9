"""How many transitions a second moto's interpreter makes, in memory."""

import json
import time

import boto3
from moto import mock_aws

STATES = 200
RUNS = 5

with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
    sfn = boto3.client("stepfunctions", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    states = {f"S{n}": {"Type": "Pass", "Next": f"S{n + 1}"} for n in range(STATES)}
    states[f"S{STATES}"] = {"Type": "Succeed"}
    definition = json.dumps({"StartAt": "S0", "States": states})
    role = "arn:aws:iam::123456789012:role/r"
    machine = sfn.create_state_machine(name="m", definition=definition, roleArn=role)["stateMachineArn"]
    began = time.monotonic()
    for run in range(RUNS):
        execution = sfn.start_execution(stateMachineArn=machine, name=f"r{run}")["executionArn"]
        while sfn.describe_execution(executionArn=execution)["status"] == "RUNNING":
            time.sleep(0.001)
    print(json.dumps({"transitions_per_s": RUNS * (STATES + 1) / (time.monotonic() - began)}))
