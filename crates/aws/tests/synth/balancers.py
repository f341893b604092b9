"""What moto 5.2.5 lacks of a template's load balancers and listeners, for all who start it."""

from moto.elbv2.models import ELBv2Backend, FakeLoadBalancer


def with_type(create):
    """Of a template's load balancers moto makes all for HTTP."""

    def created(cls, resource_name, cloudformation_json, account_id, region_name, **kwargs):
        own = create(resource_name, cloudformation_json, account_id, region_name, **kwargs)
        own.type = cloudformation_json["Properties"].get("Type", "application")
        return own

    return classmethod(created)


def with_shares(convert):
    """Of a template's listeners moto knows those that forward to one target group."""

    def converted(self, properties):
        one = lambda action: action if "ForwardConfig" in action else convert(self, {"DefaultActions": [action]})[0]
        return [one(action) for action in properties["DefaultActions"]]

    return converted


def with_shared(modify):
    """A listener of a port that TCP and UDP share cannot be changed."""

    def modified(self, arn, port=None, protocol=None, *rest):
        return modify(self, arn, port, None if protocol in ("TCP_UDP", "UDP") else protocol, *rest)

    return modified


def mend():
    ELBv2Backend.modify_listener = with_shared(ELBv2Backend.modify_listener)
    FakeLoadBalancer.create_from_cloudformation_json = with_type(FakeLoadBalancer.create_from_cloudformation_json)
    ELBv2Backend.convert_and_validate_properties = with_shares(ELBv2Backend.convert_and_validate_properties)
