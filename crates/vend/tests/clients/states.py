"""What boto3 and the AWS CLI do against `--endpoint-url`, unchanged. Started by the test `real_clients_work`."""

import json
import os
import subprocess
import sys
import threading
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = os.environ["ENDPOINT"]
ROLE = "arn:aws:iam::123456789012:role/anything"
ONCE = {"max_attempts": 1, "mode": "standard"}


def client(key, secret, endpoint=ENDPOINT):
    config = Config(retries=ONCE, read_timeout=70)
    return boto3.client(
        "stepfunctions",
        endpoint_url=endpoint,
        region_name="local",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=config,
    )


sfn = client(os.environ["KEY"], os.environ["SECRET"])
other = client(os.environ["OTHER_KEY"], os.environ["OTHER_SECRET"])


def refused(name, call, /, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = error.response["Error"]["Code"]
        assert found == name, f"{found}, not {name}: {error}"
        return error
    raise AssertionError(f"not refused with {name}")


def wait(execution, timeout=20):
    for _ in range(timeout * 50):
        found = sfn.describe_execution(executionArn=execution)
        if found["status"] != "RUNNING":
            return found
        time.sleep(0.02)
    raise AssertionError("it does not end")


def aws(*arguments):
    environment = dict(
        os.environ,
        AWS_ACCESS_KEY_ID=os.environ["KEY"],
        AWS_SECRET_ACCESS_KEY=os.environ["SECRET"],
        AWS_DEFAULT_REGION="local",
        AWS_PAGER="",
    )
    program = os.path.join(os.path.dirname(sys.executable), "aws")
    command = [sys.executable, program, "--endpoint-url", ENDPOINT, "--output", "json", "stepfunctions", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return json.loads(done.stdout) if done.stdout.strip() else None


def definition(*states):
    names = [name for name, _ in states]
    body = {}
    for index, (name, state) in enumerate(states):
        follows = {"End": True} if index + 1 == len(states) else {"Next": names[index + 1]}
        body[name] = state if state["Type"] in ("Succeed", "Fail") else {**state, **follows}
    return json.dumps({"StartAt": names[0], "States": body})


def work(activity, answer, count=1):
    for _ in range(count):
        task = sfn.get_activity_task(activityArn=activity, workerName="tester")
        answer(task["taskToken"], json.loads(task["input"]))


def activities():
    made = sfn.create_activity(name="work", tags=[{"key": "team", "value": "a"}])
    again = sfn.create_activity(name="work")
    assert made["activityArn"] == again["activityArn"]
    assert made["creationDate"] == again["creationDate"]
    arn = made["activityArn"]
    assert sfn.describe_activity(activityArn=arn)["name"] == "work"
    assert [item["activityArn"] for item in sfn.list_activities()["activities"]] == [arn]
    assert other.list_activities()["activities"] == []
    refused("ActivityDoesNotExist", other.describe_activity, activityArn=arn)
    refused("InvalidName", sfn.create_activity, name="no spaces")
    refused("InvalidArn", sfn.describe_activity, activityArn="arn:aws:states:local:1:activity:x")
    sfn.tag_resource(resourceArn=arn, tags=[{"key": "stage", "value": "b"}])
    sfn.untag_resource(resourceArn=arn, tagKeys=["team"])
    assert sfn.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "stage", "value": "b"}]
    return arn


def machines(activity):
    text = definition(("Work", {"Type": "Task", "Resource": activity, "HeartbeatSeconds": 5, "TimeoutSeconds": 60}), ("Done", {"Type": "Succeed"}))
    made = sfn.create_state_machine(name="orders", definition=text, roleArn=ROLE)
    again = sfn.create_state_machine(name="orders", definition=text, roleArn=ROLE)
    assert made["stateMachineArn"] == again["stateMachineArn"]
    arn = made["stateMachineArn"]
    refused("StateMachineAlreadyExists", sfn.create_state_machine, name="orders", definition=definition(("P", {"Type": "Pass"})), roleArn=ROLE)
    refused("InvalidDefinition", sfn.create_state_machine, name="bad", definition='{"StartAt":"X","States":{}}', roleArn=ROLE)
    refused("InvalidName", sfn.create_state_machine, name="a/b", definition=text, roleArn=ROLE)
    found = sfn.describe_state_machine(stateMachineArn=arn)
    assert (found["definition"], found["type"], found["status"]) == (text, "STANDARD", "ACTIVE")
    refused("StateMachineDoesNotExist", other.describe_state_machine, stateMachineArn=arn)
    assert other.list_state_machines()["stateMachines"] == []
    first = sfn.publish_state_machine_version(stateMachineArn=arn, description="one")["stateMachineVersionArn"]
    assert sfn.publish_state_machine_version(stateMachineArn=arn)["stateMachineVersionArn"] == first
    changed = sfn.update_state_machine(stateMachineArn=arn, roleArn=ROLE + "2", publish=True)
    second = changed["stateMachineVersionArn"]
    listed = sfn.list_state_machine_versions(stateMachineArn=arn)["stateMachineVersions"]
    assert [version["stateMachineVersionArn"] for version in listed] == [second, first]
    routes = [{"stateMachineVersionArn": first, "weight": 100}]
    alias = sfn.create_state_machine_alias(name="live", routingConfiguration=routes)["stateMachineAliasArn"]
    assert sfn.describe_state_machine_alias(stateMachineAliasArn=alias)["routingConfiguration"] == routes
    refused("ConflictException", sfn.delete_state_machine_version, stateMachineVersionArn=first)
    both = [{"stateMachineVersionArn": first, "weight": 1}, {"stateMachineVersionArn": second, "weight": 99}]
    sfn.update_state_machine_alias(stateMachineAliasArn=alias, routingConfiguration=both)
    assert len(sfn.list_state_machine_aliases(stateMachineArn=arn)["stateMachineAliases"]) == 1
    sfn.update_state_machine_alias(stateMachineAliasArn=alias, routingConfiguration=routes)
    return arn, alias


def executions(machine, alias, activity):
    started = sfn.start_execution(stateMachineArn=machine, name="one", input='{"n": 1.0}')
    arn = started["executionArn"]
    assert sfn.start_execution(stateMachineArn=machine, name="one", input='{"n": 1.0}')["executionArn"] == arn
    refused("ExecutionAlreadyExists", sfn.start_execution, stateMachineArn=machine, name="one", input='{"n": 2}')
    refused("InvalidExecutionInput", sfn.start_execution, stateMachineArn=machine, input="{")
    refused("StateMachineDoesNotExist", other.start_execution, stateMachineArn=machine)
    refused("ExecutionDoesNotExist", other.describe_execution, executionArn=arn)
    tokens = []

    def answer(token, given):
        assert given == {"n": 1.0}
        tokens.append(token)
        sfn.send_task_heartbeat(taskToken=token)
        refused("TaskTimedOut", other.send_task_success, taskToken=token, output="{}")
        refused("InvalidOutput", sfn.send_task_success, taskToken=token, output="{")
        sfn.send_task_success(taskToken=token, output='{"n": 2.50}')

    work(activity, answer)
    found = wait(arn)
    assert (found["status"], json.loads(found["output"])) == ("SUCCEEDED", {"n": 2.5}), found
    refused("TaskTimedOut", sfn.send_task_success, taskToken=tokens[0], output="{}")
    refused("InvalidToken", sfn.send_task_heartbeat, taskToken="not a token")
    refused("ExecutionAlreadyExists", sfn.start_execution, stateMachineArn=machine, name="one", input='{"n": 1.0}')

    history = sfn.get_execution_history(executionArn=arn)["events"]
    kinds = [event["type"] for event in history]
    assert kinds == [
        "ExecutionStarted",
        "TaskStateEntered",
        "ActivityScheduled",
        "ActivityStarted",
        "ActivitySucceeded",
        "TaskStateExited",
        "SucceedStateEntered",
        "SucceedStateExited",
        "ExecutionSucceeded",
    ], kinds
    assert history[3]["activityStartedEventDetails"] == {"workerName": "tester"}
    assert [event["id"] for event in history] == list(range(1, 10))
    pages = sfn.get_paginator("get_execution_history")
    for backwards in (False, True):
        paged = pages.paginate(executionArn=arn, reverseOrder=backwards, PaginationConfig={"PageSize": 4})
        ids = [event["id"] for page in paged for event in page["events"]]
        assert ids == sorted(range(1, 10), reverse=backwards), ids

    by_alias = sfn.start_execution(stateMachineArn=alias)["executionArn"]
    found = sfn.describe_execution(executionArn=by_alias)
    assert found["stateMachineAliasArn"] == alias and found["stateMachineVersionArn"].endswith(":1"), found
    then = sfn.describe_state_machine_for_execution(executionArn=by_alias)
    assert then["roleArn"] == ROLE, then
    work(activity, lambda token, given: sfn.send_task_failure(taskToken=token, error="Broken", cause="on purpose"))
    found = wait(by_alias)
    assert (found["status"], found["error"], found["cause"]) == ("FAILED", "Broken", "on purpose")
    assert found["redriveStatus"] == "REDRIVABLE", found
    refused("ExecutionDoesNotExist", other.redrive_execution, executionArn=by_alias)
    assert sfn.redrive_execution(executionArn=by_alias)["redriveDate"]
    refused("ExecutionNotRedrivable", sfn.redrive_execution, executionArn=by_alias)
    work(activity, lambda token, given: sfn.send_task_failure(taskToken=token, error="Again"))
    found = wait(by_alias)
    assert (found["status"], found["error"], found["redriveCount"]) == ("FAILED", "Again", 1), found
    refused("ExecutionNotRedrivable", sfn.redrive_execution, executionArn=arn)

    stopped = sfn.start_execution(stateMachineArn=machine)["executionArn"]
    refused("ExecutionDoesNotExist", other.stop_execution, executionArn=stopped)
    assert sfn.stop_execution(executionArn=stopped, error="E", cause="C")["stopDate"]
    found = wait(stopped)
    assert (found["status"], found["error"]) == ("ABORTED", "E")

    listed = sfn.list_executions(stateMachineArn=machine)["executions"]
    assert [item["status"] for item in listed] == ["ABORTED", "FAILED", "SUCCEEDED"], listed
    paged = sfn.get_paginator("list_executions").paginate(stateMachineArn=machine, PaginationConfig={"PageSize": 1})
    assert len([item for page in paged for item in page["executions"]]) == 3
    failed = sfn.list_executions(stateMachineArn=machine, statusFilter="FAILED")["executions"]
    assert [item["executionArn"] for item in failed] == [by_alias]


def waits():
    text = definition(("Wait", {"Type": "Wait", "Seconds": 1}), ("Make", {"Type": "Pass", "Result": {"a": [1, "x"]}, "ResultPath": "$.made"}))
    machine = sfn.create_state_machine(name="waits", definition=text, roleArn=ROLE)["stateMachineArn"]
    arn = sfn.start_execution(stateMachineArn=machine, input='{"b": true}')["executionArn"]
    found = wait(arn)
    assert json.loads(found["output"]) == {"b": True, "made": {"a": [1, "x"]}}
    lasted = (found["stopDate"] - found["startDate"]).total_seconds()
    assert lasted >= 1, lasted
    nobody = definition(("Call", {"Type": "Task", "Resource": "arn:aws:lambda:us-east-1:123456789012:function:f"}))
    machine = sfn.create_state_machine(name="nobody", definition=nobody, roleArn=ROLE)["stateMachineArn"]
    found = wait(sfn.start_execution(stateMachineArn=machine)["executionArn"])
    assert found["status"] == "FAILED" and "does not call" in found["cause"], found


def express():
    text = definition(("Pick", {"Type": "Pass", "Parameters": {"sum.$": "States.MathAdd($.a, 1)"}}))
    machine = sfn.create_state_machine(name="quick", definition=text, roleArn=ROLE, type="EXPRESS")["stateMachineArn"]
    found = sfn.start_sync_execution(stateMachineArn=machine, input='{"a": 41}', name="q")
    assert (found["status"], json.loads(found["output"])) == ("SUCCEEDED", {"sum": 42}), found
    named = client(os.environ["KEY"], os.environ["SECRET"], os.environ["NAMED"])
    assert named.start_sync_execution(stateMachineArn=machine, input='{"a": 41}')["output"] == found["output"]
    broken = sfn.start_sync_execution(stateMachineArn=machine, input="{}")
    assert broken["status"] == "FAILED" and broken["error"], broken
    assert ":express:quick:" in sfn.start_execution(stateMachineArn=machine, input='{"a": 1}')["executionArn"]
    refused("StateMachineTypeNotSupported", sfn.list_executions, stateMachineArn=machine)
    refused("StateMachineDoesNotExist", other.start_sync_execution, stateMachineArn=machine)
    return machine


def until(found, timeout=20):
    for _ in range(timeout * 50):
        if found():
            return
        time.sleep(0.02)
    raise AssertionError("it does not come about")


def maps(activity):
    config = {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    child = {**json.loads(definition(("Work each", {"Type": "Task", "Resource": activity}))), "ProcessorConfig": config}
    state = {"Type": "Map", "ItemsPath": "$.all", "MaxConcurrency": 2, "Label": "each", "ItemProcessor": child}
    machine = sfn.create_state_machine(name="maps", definition=definition(("Map", state)), roleArn=ROLE)["stateMachineArn"]
    arn = sfn.start_execution(stateMachineArn=machine, input='{"all": [1, 2, 3]}')["executionArn"]
    [listed] = sfn.list_map_runs(executionArn=arn)["mapRuns"]
    run = listed["mapRunArn"]
    assert (listed["executionArn"], listed["stateMachineArn"]) == (arn, machine), listed
    assert ":mapRun:maps/each:" in run, run
    until(lambda: len(sfn.list_executions(mapRunArn=run)["executions"]) == 2)
    found = sfn.describe_map_run(mapRunArn=run)
    assert (found["status"], found["executionArn"], found["maxConcurrency"]) == ("RUNNING", arn, 2), found
    assert found["itemCounts"]["running"] == 2 and found["itemCounts"]["pending"] == 1, found
    assert found["executionCounts"]["total"] == 3 and found["redriveCount"] == 0, found
    refused("ResourceNotFound", other.describe_map_run, mapRunArn=run)
    refused("ResourceNotFound", other.list_executions, mapRunArn=run)
    refused("ResourceNotFound", other.update_map_run, mapRunArn=run, maxConcurrency=3)
    refused("ValidationException", sfn.update_map_run, mapRunArn=run, toleratedFailurePercentage=101)
    refused("InvalidArn", sfn.describe_map_run, mapRunArn=arn)
    sfn.update_map_run(mapRunArn=run, maxConcurrency=3)
    until(lambda: len(sfn.list_executions(mapRunArn=run)["executions"]) == 3)

    item = sfn.list_executions(mapRunArn=run, statusFilter="RUNNING")["executions"][0]
    assert item["mapRunArn"] == run and item["itemCount"] == 1, item
    child = sfn.describe_execution(executionArn=item["executionArn"])
    assert child["mapRunArn"] == run and child["stateMachineArn"] == machine + "/each", child
    then = sfn.describe_state_machine_for_execution(executionArn=item["executionArn"])
    assert (then["mapRunArn"], then["label"]) == (run, "each") and "Work each" in then["definition"], then
    assert [item["executionArn"] for item in sfn.list_executions(stateMachineArn=machine)["executions"]] == [arn]

    work(activity, lambda token, given: sfn.send_task_success(taskToken=token, output=json.dumps(given * 10)))
    work(activity, lambda token, given: sfn.send_task_failure(taskToken=token, error="Broken"))
    found = wait(arn)
    assert (found["status"], found["error"]) == ("FAILED", "States.ExceedToleratedFailureThreshold"), found
    until(lambda: sfn.describe_map_run(mapRunArn=run)["executionCounts"]["aborted"] == 1)
    found = sfn.describe_map_run(mapRunArn=run)
    counts = found["executionCounts"]
    assert found["status"] == "FAILED" and found["stopDate"], found
    assert (counts["succeeded"], counts["failed"], counts["pending"], counts["running"]) == (1, 1, 0, 0), counts
    refused("ValidationException", sfn.update_map_run, mapRunArn=run, maxConcurrency=3)
    [failed] = sfn.list_executions(mapRunArn=run, statusFilter="FAILED")["executions"]
    assert sfn.describe_execution(executionArn=failed["executionArn"])["redriveStatus"] == "REDRIVABLE_BY_MAP_RUN"
    refused("ExecutionNotRedrivable", sfn.redrive_execution, executionArn=failed["executionArn"])

    sfn.redrive_execution(executionArn=arn)
    work(activity, lambda token, given: sfn.send_task_success(taskToken=token, output=json.dumps(given * 10)), 2)
    found = wait(arn)
    assert (found["status"], json.loads(found["output"])) == ("SUCCEEDED", [10, 20, 30]), found
    found = sfn.describe_map_run(mapRunArn=run)
    assert (found["status"], found["redriveCount"], found["itemCounts"]["succeeded"]) == ("SUCCEEDED", 1, 3), found
    assert found["redriveDate"] and found["itemCounts"]["pendingRedrive"] == 0, found
    kinds = [event["type"] for event in sfn.get_execution_history(executionArn=arn)["events"]]
    assert kinds.count("MapRunStarted") == 1 and kinds.count("MapRunRedriven") == 1, kinds
    [redriven] = [event for event in sfn.get_execution_history(executionArn=arn)["events"] if event["type"] == "MapRunRedriven"]
    assert redriven["mapRunRedrivenEventDetails"] == {"mapRunArn": run, "redriveCount": 1}, redriven

    reads = {**state, "ItemReader": {"Resource": "arn:aws:states:::s3:getObject", "Parameters": {"Bucket": "b", "Key": "k"}}}
    del reads["ItemsPath"]
    sfn.update_state_machine(stateMachineArn=machine, definition=definition(("Map", reads)))
    found = wait(sfn.start_execution(stateMachineArn=machine)["executionArn"])
    assert found["error"] == "States.ItemReaderFailed" and "no object store" in found["cause"], found


def checks():
    good = sfn.validate_state_machine_definition(definition=definition(("P", {"Type": "Pass"})))
    assert (good["result"], good["diagnostics"]) == ("OK", [])
    bad = sfn.validate_state_machine_definition(definition='{"StartAt":"X","States":{"P":{"Type":"Pass","End":true}}}')
    tested = sfn.test_state(definition='{"Type":"Pass","Result":7,"Next":"X"}', roleArn=ROLE, input="{}")
    assert (tested["status"], tested["output"], tested["nextState"]) == ("SUCCEEDED", "7", "X"), tested
    assert bad["result"] == "FAIL" and bad["diagnostics"][0]["code"], bad


def identity(machine):
    wrong = client(os.environ["KEY"], os.environ["OTHER_SECRET"])
    refused("InvalidSignatureException", wrong.list_state_machines)
    refused("UnrecognizedClientException", client("AKIAIOSFODNN7EXAMPLE", "x").list_state_machines)
    refused("UnrecognizedClientException", client("VEND999999", "x").list_state_machines)


def command_line(machine, activity, quick):
    names = [item["name"] for item in aws("list-state-machines")["stateMachines"]]
    assert names == ["maps", "nobody", "orders", "quick", "waits"], names
    started = aws("start-execution", "--state-machine-arn", machine, "--input", '{"by": "cli"}')
    worker = threading.Thread(target=work, args=(activity, lambda token, given: sfn.send_task_success(taskToken=token, output='"ok"')))
    worker.start()
    worker.join()
    wait(started["executionArn"])
    found = aws("describe-execution", "--execution-arn", started["executionArn"])
    assert (found["status"], found["output"]) == ("SUCCEEDED", '"ok"'), found
    events = aws("get-execution-history", "--execution-arn", started["executionArn"], "--page-size", "2")["events"]
    assert len(events) == 9, events
    sync = aws("start-sync-execution", "--state-machine-arn", quick, "--input", '{"a": 1}')
    assert json.loads(sync["output"]) == {"sum": 2}, sync


def deletions(machine, activity):
    # What waits goes on waiting when its activity is deleted; what comes next fails.
    twice = definition(("First", {"Type": "Task", "Resource": activity}), ("Then", {"Type": "Task", "Resource": activity}))
    twice = sfn.create_state_machine(name="twice", definition=twice, roleArn=ROLE)["stateMachineArn"]
    waiting = sfn.start_execution(stateMachineArn=twice)["executionArn"]
    token = sfn.get_activity_task(activityArn=activity)["taskToken"]
    running = sfn.start_execution(stateMachineArn=machine)["executionArn"]
    sfn.delete_state_machine(stateMachineArn=machine)
    sfn.delete_state_machine(stateMachineArn=machine)
    assert wait(running)["status"] == "ABORTED"
    refused("StateMachineDoesNotExist", sfn.start_execution, stateMachineArn=machine)
    sfn.delete_activity(activityArn=activity)
    refused("ActivityDoesNotExist", sfn.get_activity_task, activityArn=activity)
    sfn.send_task_success(taskToken=token, output="{}")
    found = wait(waiting)
    assert (found["error"], found["cause"]) == ("States.Runtime", f"The activity {activity} does not exist."), found
    gone = definition(("Work", {"Type": "Task", "Resource": activity}))
    machine = sfn.create_state_machine(name="gone", definition=gone, roleArn=ROLE)["stateMachineArn"]
    found = wait(sfn.start_execution(stateMachineArn=machine)["executionArn"])
    assert (found["error"], found["cause"]) == ("States.Runtime", f"The activity {activity} does not exist."), found


activity = activities()
machine, alias = machines(activity)
executions(machine, alias, activity)
waits()
quick = express()
maps(activity)
checks()
identity(machine)
command_line(machine, activity, quick)
deletions(machine, activity)
print("every call was answered as it should be")
