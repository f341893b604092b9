"""moto's server, with what it lacks of CloudFormation for stacks that are applied, changed, protected and destroyed.

Each class and function below is a gap of moto 5.2.5, and nothing else; docs/aws.md lists them. Usage: server.py PORT [FILE], where FILE gets a certificate, and TLS is spoken.
"""

import datetime
import ipaddress
import json
import os
import re
import sys
from types import SimpleNamespace

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from moto.acm.models import acm_backends
from moto.apigatewayv2.models import apigatewayv2_backends
from moto.cloudformation import models, parsing, responses
from moto.cloudformation.exceptions import AlreadyExistsException, ValidationError
from moto.core.common_models import CloudFormationModel
from moto.core.responses import ActionResult, BaseResponse
from moto.ec2.models import ec2_backends
from moto.ec2.models.route_tables import RouteTable
from moto.elbv2.models import FakeListenerRule, elbv2_backends
from moto.kms.models import Key
from moto.logs.models import logs_backends
from moto.rds.models import DBInstance
from moto.route53 import models as zones
from moto.route53.models import FakeZone
from moto.s3.models import s3_backends
from moto.secretsmanager.exceptions import InvalidRequestException
from moto.secretsmanager.models import SecretsManagerBackend
from moto.ssm.models import Command, SimpleSystemManagerBackend, ssm_backends

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../aws/tests/synth"))
import balancers


class Certificate(CloudFormationModel):
    """AWS::CertificateManager::Certificate: ignored, so that listeners of HTTPS cannot be made."""

    # moto takes a model's service from its module.
    __module__ = "moto.acm.models"

    def __init__(self, arn):
        self.arn = arn

    @property
    def physical_resource_id(self):
        return self.arn

    @staticmethod
    def cloudformation_name_type():
        return ""

    @staticmethod
    def cloudformation_type():
        return "AWS::CertificateManager::Certificate"

    @classmethod
    def create_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
        domain = cloudformation_json["Properties"]["DomainName"]
        return cls(acm_backends[account_id][region_name].request_certificate(domain, None, [], []))

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name
    ):
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name):
        acm_backends[account_id][region_name].delete_certificate(resource_name)


class Api(CloudFormationModel):
    """AWS::ApiGatewayV2::Api: ignored, and a template that asks for its address is refused."""

    __module__ = "moto.apigatewayv2.models"

    def __init__(self, api):
        self.api = api

    @property
    def physical_resource_id(self):
        return self.api.api_id

    def get_cfn_attribute(self, attribute_name):
        return {"ApiEndpoint": self.api.api_endpoint, "ApiId": self.api.api_id}[attribute_name]

    @staticmethod
    def cloudformation_name_type():
        return ""

    @staticmethod
    def cloudformation_type():
        return "AWS::ApiGatewayV2::Api"

    @classmethod
    def create_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
        own = cloudformation_json["Properties"]
        backend = apigatewayv2_backends[account_id][region_name]
        return cls(backend.create_api(None, None, None, None, False, own["Name"], own["ProtocolType"], None, {}, None))

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name
    ):
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name):
        apigatewayv2_backends[account_id][region_name].delete_api(resource_name)


def with_outputs(apply):
    """A change set that is executed leaves the stack's outputs and template as they were, and one that creates knows no exports."""

    def applied(self):
        stack = self.stack
        backend = models.cloudformation_backends[stack.account_id][stack.region_name]
        stack.cross_stack_resources = stack.resource_map.cross_stack_resources = backend.exports
        apply(self)
        stack.template, stack.template_dict = self.template, self.template_dict
        stack.parameters = self.parameters
        stack.output_map = stack._create_output_map()
        backend.exports.update({export.name: export for export in stack.exports})

    return applied


def params(self, listed):
    """`UsePreviousValue` is not followed in a change set."""
    name = self._get_param("StackName")
    stacks = self.cloudformation_backend.stacks.values()
    before = next((stack.parameters for stack in stacks if stack.name == name), {})
    asked = {one["ParameterKey"]: one.get("ParameterValue", before.get(one["ParameterKey"])) for one in listed}
    return {name: value for name, value in asked.items() if value is not None}


def with_defaults(resolve):
    """An update does not know the values of parameters that have their defaults."""

    def resolved(self, instance, incoming_params):
        own = instance.template_dict["Parameters"] if hasattr(instance, "template_dict") else {}
        defaults = {name: str(one["Default"]) for name, one in own.items() if "Default" in one}
        instance.parameters = {**defaults, **instance.parameters}
        return resolve(self, instance, incoming_params)

    return resolved


def living(change):
    """A secret that is on its way out is made and changed as if it were not."""

    def changed(self, *args, **kwargs):
        name = kwargs.get("name") or kwargs.get("secret_id") or args[0]
        known = self.secrets[name] if name in self.secrets.keys() else None
        if known is not None and known.is_deleted():
            raise InvalidRequestException("it was marked for deletion")
        return change(self, *args, **kwargs)

    return changed


def update_termination_protection(self):
    """UpdateTerminationProtection is missing."""
    stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
    stack.enable_termination_protection = str(self._get_param("EnableTerminationProtection")).lower() == "true"
    return ActionResult({"StackId": stack.stack_id})


def without_exception(parse):
    """`RetainExceptOnCreate` is not known, and what has it is deleted."""

    def parsed(self):
        parse(self)
        for own in self.template_dict.get("Resources", {}).values():
            if own.get("DeletionPolicy") == "RetainExceptOnCreate":
                own["DeletionPolicy"] = "Retain"

    return parsed


def event(stack, resource, kind, status, why):
    stack.events.append(models.Event(stack.stack_id, stack.name, resource, "", kind, status, why, None))


def rolled_back(create):
    """A creation that fails leaves a stack in the middle of it, and answers the error."""

    def created(self, name, **kwargs):
        try:
            return create(self, name=name, **kwargs)
        except Exception as error:
            stack = next((one for one in self.stacks.values() if one.name == name), None)
            if stack is None or isinstance(error, AlreadyExistsException):
                raise
            made = dict(stack.resource_map._parsed_resources)
            failed = next(id for id in stack.resource_map._resource_json_map if id not in made)
            kind = stack.resource_map._resource_json_map[failed]["Type"]
            event(stack, failed, kind, "CREATE_FAILED", getattr(error, "message", str(error)))
            try:
                stack.resource_map.delete()
            except Exception:
                pass
            stack._add_stack_event("ROLLBACK_COMPLETE")
            stack.status, stack.output_map = "ROLLBACK_COMPLETE", models.OutputMap(stack.resource_map, {}, stack.stack_id)
            return stack

    return created


def guarded(delete):
    """A protected stack is deleted; one that cannot be deleted is forgotten; what was retained is not remembered."""

    def deleted(self, name_or_stack_id):
        stack = next((one for one in self.stacks.values() if name_or_stack_id in (one.name, one.stack_id)), None)
        if stack is None:
            return None
        if stack.enable_termination_protection:
            raise ValidationError(message=f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled")
        stack.remembered = summaries(stack)
        made = stack.resource_map._parsed_resources
        try:
            delete(self, stack.stack_id)
            stack.output_map = models.OutputMap(stack.resource_map, {}, stack.stack_id)
            return None
        except Exception as error:
            left = [id for id, own in stack.resource_map._resource_json_map.items() if id in made and own.get("DeletionPolicy") != "Retain"]
            vpc = next((id for id in left if stack.resource_map._resource_json_map[id]["Type"] == "AWS::EC2::VPC"), left[0])
            event(stack, vpc, stack.resource_map._resource_json_map[vpc]["Type"], "DELETE_FAILED", getattr(error, "message", str(error)))
            stack._add_stack_event("DELETE_FAILED")
            stack.status = "DELETE_FAILED"
            stack.output_map = models.OutputMap(stack.resource_map, {"Outputs": {"Vend": stack.template_dict["Outputs"]["Vend"]}}, stack.stack_id)
            self.stacks[stack.stack_id] = stack
            return None

    return deleted


def summaries(stack):
    """Every resource of a stack that was made; moto makes those anew that are asked for after their end."""
    map = stack.resource_map
    made = [(id, own) for id, own in map._parsed_resources.items() if id in map._resource_json_map and own is not None]
    return [
        {
            "LogicalResourceId": id,
            "PhysicalResourceId": getattr(own, "physical_resource_id", "") or "",
            "ResourceType": map._resource_json_map[id]["Type"],
            "ResourceStatus": "CREATE_COMPLETE",
            "LastUpdatedTimestamp": stack.creation_time,
        }
        for id, own in made
    ]


def list_stack_resources(self):
    stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
    return ActionResult({"StackResourceSummaries": getattr(stack, "remembered", None) or summaries(stack)})


def hindrance(stack):
    """The resource of the stack that the parameter /test/hindered names."""
    known = ssm_backends[stack.account_id][stack.region_name].get_parameter("/test/hindered")
    return known.value if known and known.value in stack.resource_map._resource_json_map else None


def answered(invocation):
    """What a command says: nothing. One that loads an object which is there, or dumps into one, counts what the parameter
    /test/counted says, unless /test/fails says why it does not."""

    def answer(self, instance_id, plugin_name):
        said = invocation(self, instance_id, plugin_name)
        lines = "\n".join(self.parameters.get("commands", []))
        loads = re.search(r"--bucket '([^']+)' --key '(move/[^']+)' --version-id '[^']+'", lines)
        dumps = re.search(r"- 's3://([^/']+)/(move/[^']+)'", lines)
        known, why = (ssm_backends[self.account_id][self.backend_region].get_parameter(f"/test/{n}") for n in ("counted", "fails"))
        objects = s3_backends[self.account_id]["aws"]
        if why and (loads or dumps):
            said["Status"], said["StandardErrorContent"] = "Failed", why.value
        elif known and loads and objects.get_object(*loads.groups()) is not None:
            said["StandardOutputContent"] = f"Complete!\ncounted: {known.value}\n"
        elif known and dumps:
            # More than a piece.
            version = objects.put_object(*dumps.groups(), b"a dump. " * (3 << 20)).version_id
            said["StandardOutputContent"] = f"counted: {known.value}\nversion: {version}\n"
        return said

    return answer


def refused(describe):
    """No change set fails early validation. Each does while the parameter /test/refused names a resource."""

    def described(self):
        found = describe(self)
        known = ssm_backends[self.current_account][self.region].get_parameter("/test/refused")
        if known is None:
            return found
        why = "The following hook(s)/validation failed: [AWS::EarlyValidation::ResourceExistenceCheck]. To troubleshoot Early "
        why += "Validation errors, use the DescribeEvents API for detailed failure information."
        name = self._get_param("ChangeSetName")
        id = next(own.change_set_id for own in self.cloudformation_backend.change_sets.values() if name in (own.change_set_id, own.change_set_name))
        answer = {"ChangeSetId": id, "ChangeSetName": name, "Changes": [], "Parameters": {}}
        return ActionResult({**answer, "Status": "FAILED", "StatusReason": why})

    return described


def describe_events(self):
    """DescribeEvents is missing."""
    known = ssm_backends[self.current_account][self.region].get_parameter("/test/refused")
    if self._get_param("ChangeSetName") not in self.cloudformation_backend.change_sets:
        raise ValidationError(message="there is no such change set")
    event = {"EventType": "VALIDATION_ERROR", "LogicalResourceId": known.value, "ValidationStatus": "FAILED"}
    return ActionResult({"OperationEvents": [{**event, "ValidationStatusReason": "it exists already"}]})


def failed(stack, resource):
    """The way back from a change, which hangs on a resource."""
    stack._add_stack_event("UPDATE_ROLLBACK_IN_PROGRESS")
    kind = stack.resource_map._resource_json_map[resource]["Type"]
    event(stack, resource, kind, "UPDATE_FAILED", "somebody hinders it")
    stack._add_stack_event("UPDATE_ROLLBACK_FAILED")
    stack.status = "UPDATE_ROLLBACK_FAILED"


def hindered(execute):
    """No change fails, nor the way back from it."""

    def executed(self, change_set_name, stack_name=None):
        asked = next(one for one in self.change_sets.values() if change_set_name in (one.change_set_id, one.change_set_name))
        stack = self.stacks[asked.stack_id]
        resource = hindrance(stack)
        if resource is None:
            return execute(self, change_set_name, stack_name)
        stack._add_stack_event("UPDATE_IN_PROGRESS")
        failed(stack, resource)
        asked.execution_status = "EXECUTE_FAILED"

    return executed


def continue_update_rollback(self):
    """ContinueUpdateRollback is missing."""
    stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
    if stack.status != "UPDATE_ROLLBACK_FAILED":
        raise ValidationError(message=f"Stack [{stack.name}] is in {stack.status} and can not be continued")
    resource = hindrance(stack)
    if resource is not None and resource not in (self._get_param("ResourcesToSkip") or []):
        failed(stack, resource)
    else:
        stack._add_stack_event("UPDATE_ROLLBACK_IN_PROGRESS")
        stack._add_stack_event("UPDATE_ROLLBACK_COMPLETE")
        stack.status = "UPDATE_ROLLBACK_COMPLETE"
    return ActionResult({})


def bucket(stack, own, made):
    there = made.name in s3_backends[stack.account_id]["aws"].buckets
    # Versioning is lost when a stack is changed.
    wanted = own["VersioningConfiguration"]["Status"]
    return made.name, there, "/VersioningConfiguration/Status", wanted, made.versioning_status or wanted


def log_group(stack, own, made):
    there = made.name in logs_backends[stack.account_id][stack.region_name].groups
    return made.name, there, "/RetentionInDays", str(own["RetentionInDays"]), str(made.retention_in_days)


COMPARED = {"AWS::S3::Bucket": bucket, "AWS::Logs::LogGroup": log_group}


def drifts(stack):
    """How the stack's buckets and log groups compare with its template: by one property each, and by being there."""
    for id, own in stack.resource_map._resource_json_map.items():
        if own["Type"] not in COMPARED:
            continue
        made = stack.resource_map._parsed_resources[id]
        name, is_there, path, wanted, actual = COMPARED[own["Type"]](stack, own["Properties"], made)
        drift = {
            "StackId": stack.stack_id,
            "LogicalResourceId": id,
            "PhysicalResourceId": name,
            "ResourceType": own["Type"],
            "StackResourceDriftStatus": "DELETED" if not is_there else "IN_SYNC" if wanted == actual else "MODIFIED",
            "Timestamp": stack.creation_time,
        }
        if drift["StackResourceDriftStatus"] == "MODIFIED":
            values = {"ExpectedValue": wanted, "ActualValue": actual}
            drift["PropertyDifferences"] = [{"PropertyPath": path, "DifferenceType": "NOT_EQUAL", **values}]
        yield drift


ASKED = {}


def detect_stack_drift(self):
    """DetectStackDrift is missing."""
    stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
    id = str(len(ASKED))
    ASKED[id] = (stack, [])
    return ActionResult({"StackDriftDetectionId": id})


def describe_stack_drift_detection_status(self):
    """DescribeStackDriftDetectionStatus is missing. It takes one question to compare."""
    id = self._get_param("StackDriftDetectionId")
    stack, asked = ASKED[id]
    asked.append(id)
    answer = {"StackId": stack.stack_id, "StackDriftDetectionId": id, "Timestamp": stack.creation_time}
    if len(asked) == 1:
        return ActionResult({**answer, "DetectionStatus": "DETECTION_IN_PROGRESS"})
    is_same = all(one["StackResourceDriftStatus"] == "IN_SYNC" for one in drifts(stack))
    found = {"DetectionStatus": "DETECTION_COMPLETE", "StackDriftStatus": "IN_SYNC" if is_same else "DRIFTED"}
    return ActionResult({**answer, **found})


def describe_stack_resource_drifts(self):
    """DescribeStackResourceDrifts is missing."""
    stack = self.cloudformation_backend.get_stack(self._get_param("StackName"))
    wanted = self._get_param("StackResourceDriftStatusFilters")
    return ActionResult({"StackResourceDrifts": [one for one in drifts(stack) if one["StackResourceDriftStatus"] in wanted]})


def delete_route_table(cls, resource_name, cloudformation_json, account_id, region_name):
    """AWS::EC2::RouteTable stays, and with it its network."""
    backend = ec2_backends[account_id][region_name]
    backend.route_tables[resource_name]._associations.clear()
    backend.delete_route_table(resource_name)


def zone_id(make):
    """The id of a zone begins with any letter."""
    return lambda *args, **kwargs: "Z" + make(*args, **kwargs)[1:]


def name_servers(self, attribute_name):
    """AWS::Route53::HostedZone has no attributes."""
    return {"NameServers": ",".join(self.delegation_set.name_servers), "Id": self.id}[attribute_name]


def with_secret(attribute):
    """AWS::RDS::DBInstance has no MasterUserSecret, although the instance has. Fn::Sub asks for the first part of a name only."""

    def found(self, attribute_name):
        if attribute_name in ("MasterUserSecret.SecretArn", "MasterUserSecret"):
            known = getattr(self, "master_user_secret", None)
            return known.secret_arn if known else "arn:aws:secretsmanager:eu-central-1:123456789012:secret:rds!db-1"
        return attribute(self, "Endpoint.Address" if attribute_name == "Endpoint" else attribute_name)

    return found


def named(create):
    """AWS::RDS::DBInstance takes its parameter group by name, and is given the group."""

    def made(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
        properties = cloudformation_json["Properties"]
        group = properties.get("DBParameterGroupName")
        properties["DBParameterGroupName"] = getattr(group, "name", group)
        return create(resource_name, cloudformation_json, account_id, region_name, **kwargs)

    return classmethod(made)


def cut(generate):
    """The name of an AWS::RDS::DBInstance is too long for RDS where its stack's is; CloudFormation cuts that."""

    def generated(resource_type, stack_name, logical_id):
        if resource_type == "AWS::RDS::DBInstance":
            stack_name = stack_name[: 63 - len(logical_id) - len("--") - 12].rstrip("-")
        return generate(resource_type, stack_name, logical_id)

    return generated


def with_images(get_parameter):
    """Of the public parameters moto has none that names an image, and an update asks for the value of one that it has resolved."""

    def found(self, name):
        known = get_parameter(self, name)
        if known is None and name.startswith("/aws/service/"):
            image = next(iter(ec2_backends[self.account_id][self.region_name].describe_images()))
            return SimpleNamespace(value=image.id)
        return SimpleNamespace(value=name) if known is None and name.startswith("ami-") else known

    return found


def with_text(create):
    """A key's policy stays an object, and DescribeKey fails."""

    def created(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
        own = cloudformation_json["Properties"]
        own = {**own, "KeyPolicy": json.dumps(own["KeyPolicy"])}
        return create(resource_name, {**cloudformation_json, "Properties": own}, account_id, region_name, **kwargs)

    return classmethod(created)


def delete_rule(cls, resource_name, cloudformation_json, account_id, region_name):
    """A listener's rule stays when its stack goes."""
    elbv2_backends[account_id][region_name].delete_rule(resource_name)


# By which parameter AWS knows a call that is made again.
TOKENS = dict.fromkeys(["CreateStack", "UpdateStack", "DeleteStack", "ExecuteChangeSet", "ContinueUpdateRollback"], "ClientRequestToken")
TOKENS |= {"CreateChangeSet": "ClientToken", "CreateSecret": "ClientRequestToken", "PutSecretValue": "ClientRequestToken"}


def heard(get_action):
    """Writes down what is called, for tests that ask, and which of ours has no token that should have one: moto does not mind."""

    def get(self):
        action = get_action(self)
        if os.environ.get("CALLS"):
            with open(os.environ["CALLS"], "a") as file:
                file.write(f"{action}\n")
            if action == "AssumeRole":
                with open(os.environ["CALLS"] + ".roles", "a") as file:
                    file.write(f"{self.querystring.get('ExternalId', [''])[0]}\n")
            is_ours = "Boto" not in self.headers.get("User-Agent", "")
            if is_ours and action in TOKENS and TOKENS[action] not in self.querystring and f'"{TOKENS[action]}"' not in str(self.body):
                with open(os.environ["CALLS"] + ".bare", "a") as file:
                    file.write(f"{action}\n")
        return action

    return get


def certificate(path):
    """Writes a certificate for 127.0.0.1, and its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vend test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    own = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    made = made.add_extension(own, False).sign(key, hashes.SHA256())
    plain = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with open(path + ".key", "wb") as file:
        file.write(key.private_bytes(*plain))
    with open(path, "wb") as file:
        file.write(made.public_bytes(Encoding.PEM))
    return ["-c", path, "-k", path + ".key"]


def main(port, *path):
    Key.create_from_cloudformation_json = with_text(Key.create_from_cloudformation_json)
    FakeZone.get_cfn_attribute = name_servers
    zones.create_route53_zone_id = zone_id(zones.create_route53_zone_id)
    DBInstance.get_cfn_attribute = with_secret(DBInstance.get_cfn_attribute)
    DBInstance.create_from_cloudformation_json = named(DBInstance.create_from_cloudformation_json)
    parsing.generate_resource_name = cut(parsing.generate_resource_name)
    known = DBInstance.has_cfn_attr
    DBInstance.has_cfn_attr = staticmethod(lambda name: known(name) or name in ("MasterUserSecret", "Endpoint"))
    SimpleSystemManagerBackend.get_parameter = with_images(SimpleSystemManagerBackend.get_parameter)
    models.Stack._parse_template = without_exception(models.Stack._parse_template)
    models.ChangeSet._parse_template = without_exception(models.ChangeSet._parse_template)
    SecretsManagerBackend.create_secret = living(SecretsManagerBackend.create_secret)
    SecretsManagerBackend.put_secret_value = living(SecretsManagerBackend.put_secret_value)
    resolve = models.CloudFormationBackend._resolve_update_parameters
    models.CloudFormationBackend._resolve_update_parameters = with_defaults(resolve)
    models.ChangeSet.apply = with_outputs(models.ChangeSet.apply)
    RouteTable.delete_from_cloudformation_json = classmethod(delete_route_table)
    models.CloudFormationBackend.create_stack = rolled_back(models.CloudFormationBackend.create_stack)
    models.CloudFormationBackend.delete_stack = guarded(models.CloudFormationBackend.delete_stack)
    responses.CloudFormationResponse._get_params_from_list = params
    responses.CloudFormationResponse.list_stack_resources = list_stack_resources
    responses.CloudFormationResponse.update_termination_protection = update_termination_protection
    responses.CloudFormationResponse.continue_update_rollback = continue_update_rollback
    responses.CloudFormationResponse.describe_change_set = refused(responses.CloudFormationResponse.describe_change_set)
    responses.CloudFormationResponse.describe_events = describe_events
    responses.CloudFormationResponse.detect_stack_drift = detect_stack_drift
    responses.CloudFormationResponse.describe_stack_drift_detection_status = describe_stack_drift_detection_status
    responses.CloudFormationResponse.describe_stack_resource_drifts = describe_stack_resource_drifts
    models.CloudFormationBackend.execute_change_set = hindered(models.CloudFormationBackend.execute_change_set)
    Command.invocation_response = answered(Command.invocation_response)
    balancers.mend()
    FakeListenerRule.delete_from_cloudformation_json = classmethod(delete_rule)
    BaseResponse._get_action = heard(BaseResponse._get_action)
    from moto.server import main as serve

    serve(["-H", "127.0.0.1", "-p", port, *(certificate(path[0]) if path else [])])


if __name__ == "__main__":
    main(*sys.argv[1:])
