//! Every call that the platform can make to AWS, by name. Nothing else is called: a client takes only these, and what an
//! operator must be allowed ([`crate::permit`]) is made from the same list.

/// How a service is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A form in, XML out; with the version of the API.
    Query(&'static str),
    /// JSON in and out; with the prefix of `x-amz-target`, and the version of JSON.
    Json(&'static str, &'static str),
    /// S3's own.
    Rest,
}

/// One operation of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// As endpoints and signatures name the service.
    pub service: &'static str,
    pub operation: &'static str,
    pub protocol: Protocol,
    /// What IAM calls it, where that is another name than `service:operation`; empty: nobody needs to be allowed it.
    pub permission: Option<&'static str>,
    /// What for.
    pub why: &'static str,
}

impl Call {
    const fn new(
        service: &'static str,
        operation: &'static str,
        protocol: Protocol,
        why: &'static str,
    ) -> Self {
        Self {
            service,
            operation,
            protocol,
            permission: None,
            why,
        }
    }

    const fn needs(mut self, permission: &'static str) -> Self {
        self.permission = Some(permission);
        self
    }

    /// The action of a policy that allows it.
    pub fn action(&self) -> Option<String> {
        match self.permission {
            Some("") => None,
            Some(own) => Some(own.to_owned()),
            None => Some(format!("{}:{}", self.service, self.operation)),
        }
    }
}

macro_rules! calls {
    ($(#[$about:meta])* $all:ident: $($name:ident = $call:expr;)*) => {
        $(pub const $name: Call = $call;)*
        $(#[$about])*
        pub const $all: &[Call] = &[$($name),*];
    };
}

const STS: Protocol = Protocol::Query("2011-06-15");
const CFN: Protocol = Protocol::Query("2010-05-15");
const IAM: Protocol = Protocol::Query("2010-05-08");
const EC2: Protocol = Protocol::Query("2016-11-15");
const ELB: Protocol = Protocol::Query("2015-12-01");
const RDS: Protocol = Protocol::Query("2014-10-31");
const ASG: Protocol = Protocol::Query("2011-01-01");
const KMS: Protocol = Protocol::Json("TrentService", "1.1");
const QUOTAS: Protocol = Protocol::Json("ServiceQuotasV20190624", "1.1");
const SSM: Protocol = Protocol::Json("AmazonSSM", "1.1");
const ECR: Protocol = Protocol::Json("AmazonEC2ContainerRegistry_V20150921", "1.1");
const SECRETS: Protocol = Protocol::Json("secretsmanager", "1.1");
const STATES: Protocol = Protocol::Json("AWSStepFunctions", "1.0");
const LOGS: Protocol = Protocol::Json("Logs_20140328", "1.1");
const ECS: Protocol = Protocol::Json("AmazonEC2ContainerServiceV20141113", "1.1");
const DYNAMO: Protocol = Protocol::Json("DynamoDB_20120810", "1.0");

calls! {
    /// What the receiver calls, as its own role.
    RECEIVER:
    GET_SECRET = Call::new("secretsmanager", "GetSecretValue", SECRETS, "verify the signatures of webhooks");
    START_EXECUTION = Call::new("states", "StartExecution", STATES, "start the flows of a push");
}

calls! {
    /// What the commands call, as who types them.
    ALL:
    ASSUME_ROLE = Call::new("sts", "AssumeRole", STS, "become the role that a profile or a foundation names");
    ASSUME_ROLE_WITH_WEB_IDENTITY =
        Call::new("sts", "AssumeRoleWithWebIdentity", STS, "the same with a token of another issuer").needs("");
    CALLER = Call::new("sts", "GetCallerIdentity", STS, "say who calls, and in which account").needs("");

    CREATE_STACK = Call::new("cloudformation", "CreateStack", CFN, "make what is not there");
    CREATE_CHANGE_SET = Call::new("cloudformation", "CreateChangeSet", CFN, "ask what a change would do");
    DESCRIBE_CHANGE_SET = Call::new("cloudformation", "DescribeChangeSet", CFN, "read what it would do");
    DELETE_CHANGE_SET = Call::new("cloudformation", "DeleteChangeSet", CFN, "leave nothing of a plan");
    EXECUTE_CHANGE_SET = Call::new("cloudformation", "ExecuteChangeSet", CFN, "do what was shown");
    DESCRIBE_STACKS = Call::new("cloudformation", "DescribeStacks", CFN, "see what is there");
    DESCRIBE_STACK_EVENTS = Call::new("cloudformation", "DescribeStackEvents", CFN, "show progress and reasons");
    DESCRIBE_EVENTS = Call::new("cloudformation", "DescribeEvents", CFN, "say what is wrong with a change that is refused");
    LIST_STACKS = Call::new("cloudformation", "ListStacks", CFN, "find what destroyed stacks have left");
    LIST_STACK_RESOURCES = Call::new("cloudformation", "ListStackResources", CFN, "know what a stack holds");
    DELETE_STACK = Call::new("cloudformation", "DeleteStack", CFN, "destroy");
    PROTECT_STACK = Call::new("cloudformation", "UpdateTerminationProtection", CFN, "protect and unprotect");
    CONTINUE = Call::new("cloudformation", "ContinueUpdateRollback", CFN, "leave UPDATE_ROLLBACK_FAILED");
    DETECT_DRIFT = Call::new("cloudformation", "DetectStackDrift", CFN, "compare a stack with what is there");
    DRIFT_STATUS =
        Call::new("cloudformation", "DescribeStackDriftDetectionStatus", CFN, "wait for the comparison");
    RESOURCE_DRIFTS = Call::new("cloudformation", "DescribeStackResourceDrifts", CFN, "read the comparison");

    PUT_OBJECT = Call::new("s3", "PutObject", Protocol::Rest, "templates, Packer's files and sources");
    LIST_VERSIONS = Call::new("s3", "ListObjectVersions", Protocol::Rest, "empty a bucket").needs("s3:ListBucketVersions");
    LIST_UPLOADS =
        Call::new("s3", "ListMultipartUploads", Protocol::Rest, "empty a bucket").needs("s3:ListBucketMultipartUploads");
    ABORT_UPLOAD =
        Call::new("s3", "AbortMultipartUpload", Protocol::Rest, "empty a bucket");
    DELETE_OBJECTS = Call::new("s3", "DeleteObjects", Protocol::Rest, "empty a bucket").needs("s3:DeleteObjectVersion");
    DELETE_BUCKET = Call::new("s3", "DeleteBucket", Protocol::Rest, "destroy a bucket that a stack kept");

    DESCRIBE_KEY = Call::new("kms", "DescribeKey", KMS, "see whether a kept key is on its way out");
    DELETE_KEY = Call::new("kms", "ScheduleKeyDeletion", KMS, "destroy a key that a stack kept");
    DELETE_REPOSITORY = Call::new("ecr", "DeleteRepository", ECR, "destroy images that a stack kept");
    DESCRIBE_REPOSITORIES = Call::new("ecr", "DescribeRepositories", ECR, "see whether what a stack kept is still there");
    DESCRIBE_TABLE = Call::new("dynamodb", "DescribeTable", DYNAMO, "see whether what a stack kept is still there");
    DELETE_TABLE = Call::new("dynamodb", "DeleteTable", DYNAMO, "destroy a table that a stack kept");
    ZONE_RECORDS = Call::new("route53", "ListResourceRecordSets", Protocol::Rest, "empty a zone that a stack kept");
    CHANGE_RECORDS = Call::new("route53", "ChangeResourceRecordSets", Protocol::Rest, "empty a zone that a stack kept");
    DELETE_ZONE = Call::new("route53", "DeleteHostedZone", Protocol::Rest, "destroy a zone that a stack kept");

    IMAGES = Call::new("ec2", "DescribeImages", EC2, "tell which images stay");
    SNAPSHOTS = Call::new("rds", "DescribeDBSnapshots", RDS, "tell which snapshots stay");
    CLUSTER_SNAPSHOTS = Call::new("rds", "DescribeDBClusterSnapshots", RDS, "tell which snapshots stay");
    AUTOMATED_BACKUPS = Call::new("rds", "DescribeDBInstanceAutomatedBackups", RDS, "tell which backups stay");
    LOG_GROUPS = Call::new("logs", "DescribeLogGroups", LOGS, "tell which logs stay");

    BALANCER_ATTRIBUTES =
        Call::new("elasticloadbalancing", "ModifyLoadBalancerAttributes", ELB, "protect and unprotect");
    BALANCER_STATE =
        Call::new("elasticloadbalancing", "DescribeLoadBalancerAttributes", ELB, "see what is protected");
    DATABASE_STATE = Call::new("rds", "DescribeDBInstances", RDS, "see what is protected");
    CLUSTER_STATE = Call::new("rds", "DescribeDBClusters", RDS, "see what is protected");
    MODIFY_DATABASE = Call::new("rds", "ModifyDBInstance", RDS, "protect and unprotect");
    MODIFY_CLUSTER = Call::new("rds", "ModifyDBCluster", RDS, "protect and unprotect");
    SCALING_ACTIVITIES =
        Call::new("autoscaling", "DescribeScalingActivities", ASG, "say why a group got no hosts");

    FIND_SOURCE = Call::new("s3", "HeadObject", Protocol::Rest, "send a commit's source once").needs("s3:GetObject");
    BEGIN_UPLOAD = Call::new("s3", "CreateMultipartUpload", Protocol::Rest, "send what is large: sources, the receiver, the data of an environment that moves").needs("s3:PutObject");
    PUT_PIECE = Call::new("s3", "UploadPart", Protocol::Rest, "send what is large: sources, the receiver, the data of an environment that moves").needs("s3:PutObject");
    END_UPLOAD = Call::new("s3", "CompleteMultipartUpload", Protocol::Rest, "send what is large: sources, the receiver, the data of an environment that moves").needs("s3:PutObject");
    GET_PIECE = Call::new("s3", "GetObject", Protocol::Rest, "carry the data of an environment that moves back").needs("s3:GetObjectVersion");
    RUN_COMMAND = Call::new("ssm", "SendCommand", SSM, "load or dump the data of an environment that moves, on one of its hosts");
    LOOK_COMMAND = Call::new("ssm", "GetCommandInvocation", SSM, "see how that went");
    CANCEL_COMMAND = Call::new("ssm", "CancelCommand", SSM, "stop a load or a dump that is given up");
    RELEASE = Call::new("states", "StartExecution", STATES, "release a commit, or an earlier one again");
    RELEASES = Call::new("states", "ListExecutions", STATES, "show releases");
    ONE_RELEASE = Call::new("states", "DescribeExecution", STATES, "show what a release releases");
    HISTORY = Call::new("states", "GetExecutionHistory", STATES, "show where a release is, and find its question");
    SAY_YES = Call::new("states", "SendTaskSuccess", STATES, "approve");
    SAY_NO = Call::new("states", "SendTaskFailure", STATES, "reject");
    UPDATE_STACK = Call::new("cloudformation", "UpdateStack", CFN, "turn the traffic back, stop the half without traffic, and stop writes to data that moves back");
    TAKE_TURN = Call::new("dynamodb", "PutItem", DYNAMO, "never move an environment that a release moves");
    LOOK_TURN = Call::new("dynamodb", "GetItem", DYNAMO, "say who moves an environment, and until when");
    LEAVE_TURN = Call::new("dynamodb", "DeleteItem", DYNAMO, "let the next release in");
    CHANGE_SLOTS = Call::new("dynamodb", "UpdateItem", DYNAMO, "make no more environments of branches than vend.yaml allows");
    LOOK_SLOTS = Call::new("dynamodb", "GetItem", DYNAMO, "say who moves an environment, and until when");
    RULES = Call::new("elasticloadbalancing", "DescribeRules", ELB, "give new rules priorities that are free");
    HEALTH = Call::new("elasticloadbalancing", "DescribeTargetHealth", ELB, "show hosts");
    GROUPS = Call::new("autoscaling", "DescribeAutoScalingGroups", ASG, "know between which numbers hosts may be");
    RELEASE_HOSTS = Call::new("autoscaling", "SetInstanceProtection", ASG, "let hosts of containers go that an earlier version protected");
    SCALE_GROUP = Call::new("autoscaling", "SetDesiredCapacity", ASG, "set the number of hosts");
    SCALE_SERVICE = Call::new("ecs", "UpdateService", ECS, "set the number of containers");
    READ_LOG = Call::new("logs", "FilterLogEvents", LOGS, "show logs");
    CREATE_SECRET = Call::new("secretsmanager", "CreateSecret", SECRETS, "set a secret that is not there");
    PUT_SECRET = Call::new("secretsmanager", "PutSecretValue", SECRETS, "set a secret");
    RESTORE_SECRET = Call::new("secretsmanager", "RestoreSecret", SECRETS, "set a secret that was unset a short time ago");
    DELETE_SECRET = Call::new("secretsmanager", "DeleteSecret", SECRETS, "unset a secret");
    LIST_SECRETS = Call::new("secretsmanager", "ListSecrets", SECRETS, "show the names of secrets");

    REGIONS = Call::new("ec2", "DescribeRegions", EC2, "check that the account may use the region");
    OFFERINGS = Call::new("ec2", "DescribeInstanceTypeOfferings", EC2, "check that the sizes exist in the region");
    ZONES = Call::new("ec2", "DescribeAvailabilityZones", EC2, "check that the account may use a Local or Wavelength Zone");
    VPCS = Call::new("ec2", "DescribeVpcs", EC2, "compare with the quota");
    ADDRESSES = Call::new("ec2", "DescribeAddresses", EC2, "compare with the quota");
    SERVICE_REGIONS =
        Call::new("ssm", "GetParametersByPath", SSM, "check that a service exists in the region");
    TYPES = Call::new("ec2", "DescribeInstanceTypes", EC2, "compare processors with the quota");
    OUTPOST_TYPES = Call::new("outposts", "GetOutpostInstanceTypes", Protocol::Rest, "check that an Outpost has the sizes");
    QUOTA = Call::new("servicequotas", "GetServiceQuota", QUOTAS, "check the account's limits");
    ROLE = Call::new("iam", "GetRole", IAM, "know the path of the role whose permissions are checked, and whether a foundation stands in another region");
    SIMULATE =
        Call::new("iam", "SimulatePrincipalPolicy", IAM, "check permissions before the first call");
}

/// What `apply --branch` and `destroy --branch` call, which a build runs as a role of its own.
pub const BRANCHES: &[Call] = &[
    CALLER,
    CREATE_STACK,
    CREATE_CHANGE_SET,
    DESCRIBE_CHANGE_SET,
    DELETE_CHANGE_SET,
    EXECUTE_CHANGE_SET,
    DESCRIBE_STACKS,
    DESCRIBE_STACK_EVENTS,
    DESCRIBE_EVENTS,
    LIST_STACKS,
    LIST_STACK_RESOURCES,
    DELETE_STACK,
    PUT_OBJECT,
    SCALING_ACTIVITIES,
    GROUPS,
    RELEASE_HOSTS,
    CHANGE_SLOTS,
    LOOK_SLOTS,
    RULES,
];
