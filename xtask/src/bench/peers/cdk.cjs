// So many stacks with what an environment has: hosts in two halves behind rules, a database, alarms, deployments.
// Written with the low-level constructs, one for each resource, as our templates are.
const from = process.hrtime.bigint();
const cdk = require("aws-cdk-lib");
const { aws_autoscaling: autoscaling, aws_cloudwatch: cloudwatch, aws_codedeploy: codedeploy, aws_ec2: ec2 } = cdk;
const { aws_elasticloadbalancingv2: elb, aws_events: events, aws_iam: iam, aws_logs: logs, aws_rds: rds } = cdk;
const { aws_route53: route53, aws_secretsmanager: secrets } = cdk;
const shared = (name) => cdk.Fn.importValue(`vend-production-${name}`);
const trust = (service) => ({ Version: "2012-10-17", Statement: [{ Effect: "Allow", Principal: { Service: service }, Action: "sts:AssumeRole" }] });
const duty = (actions) => [{ policyName: "duty", policyDocument: { Version: "2012-10-17", Statement: [{ Effect: "Allow", Action: actions, Resource: "*" }] } }];

function half(stack, word, profile, group, application) {
  const launch = new ec2.CfnLaunchTemplate(stack, `${word}Launch`, { launchTemplateData: {
    imageId: "ami-12345678", instanceType: "t4g.small", iamInstanceProfile: { arn: profile.attrArn }, securityGroupIds: [group.attrGroupId],
    metadataOptions: { httpTokens: "required" }, userData: cdk.Fn.base64("#!/bin/bash\n" + "echo environment\n".repeat(60)),
    blockDeviceMappings: [{ deviceName: "/dev/xvda", ebs: { encrypted: true, volumeType: "gp3", volumeSize: 20, kmsKeyId: shared("KeyArn") } }] } });
  const targets = new elb.CfnTargetGroup(stack, `${word}Targets`, { vpcId: shared("Vpc"), port: 8080, protocol: "HTTP", healthCheckPath: "/", matcher: { httpCode: "200-399" } });
  const hosts = new autoscaling.CfnAutoScalingGroup(stack, `${word}Group`, { minSize: "2", maxSize: "8", targetGroupArns: [targets.ref],
    vpcZoneIdentifier: cdk.Fn.split(",", shared("PrivateSubnets")),
    mixedInstancesPolicy: { launchTemplate: { launchTemplateSpecification: { launchTemplateId: launch.ref, version: launch.attrLatestVersionNumber },
      overrides: [{ instanceType: "t4g.small" }, { instanceType: "t4g.medium" }] }, instancesDistribution: { onDemandPercentageAboveBaseCapacity: 100 } } });
  new autoscaling.CfnLifecycleHook(stack, `${word}Drain`, { autoScalingGroupName: hosts.ref, lifecycleTransition: "autoscaling:EC2_INSTANCE_TERMINATING", heartbeatTimeout: 60 });
  new autoscaling.CfnScalingPolicy(stack, `${word}ByCpu`, { autoScalingGroupName: hosts.ref, policyType: "TargetTrackingScaling",
    targetTrackingConfiguration: { targetValue: 60, predefinedMetricSpecification: { predefinedMetricType: "ASGAverageCPUUtilization" } } });
  for (const [id, metricName] of [["Errors", "HTTPCode_Target_5XX_Count"], ["Latency", "TargetResponseTime"], ["Unhealthy", "UnHealthyHostCount"]]) {
    new cloudwatch.CfnAlarm(stack, `${word}${id}`, { namespace: "AWS/ApplicationELB", metricName, statistic: "Sum", period: 60, evaluationPeriods: 5, threshold: 1,
      comparisonOperator: "GreaterThanOrEqualToThreshold", alarmActions: [shared("OperationsTopic")],
      dimensions: [{ name: "LoadBalancer", value: shared("BalancerName") }, { name: "TargetGroup", value: targets.attrTargetGroupFullName }] });
  }
  new codedeploy.CfnDeploymentGroup(stack, `${word}Deployments`, { applicationName: application.ref, serviceRoleArn: shared("DeployRole"), autoScalingGroups: [hosts.ref],
    deploymentGroupName: word.toLowerCase(), autoRollbackConfiguration: { enabled: true, events: ["DEPLOYMENT_FAILURE"] } });
  return targets;
}

// Makes so many stacks, with their files. Gives the number of resources.
function make(count, outdir) {
  const app = new cdk.App({ outdir, analyticsReporting: false });
  let resources = 0;
  for (let n = 0; n < count; n += 1) {
    const stack = new cdk.Stack(app, `app${n}-live`, { synthesizer: new cdk.LegacyStackSynthesizer() });
    const port = (fromPort, more) => ({ ipProtocol: "tcp", fromPort, toPort: fromPort, ...more });
    const group = new ec2.CfnSecurityGroup(stack, "HostGroup", { groupDescription: "Hosts", vpcId: shared("Vpc"),
      securityGroupIngress: [port(8080, { sourceSecurityGroupId: shared("BalancerGroup") })], securityGroupEgress: [port(443, { cidrIp: "0.0.0.0/0" })] });
    const data = new ec2.CfnSecurityGroup(stack, "DataGroup", { groupDescription: "Data", vpcId: shared("Vpc"), securityGroupIngress: [port(3306, { sourceSecurityGroupId: group.attrGroupId })] });
    new ec2.CfnSecurityGroupEgress(stack, "HostsToData", { groupId: group.attrGroupId, destinationSecurityGroupId: data.attrGroupId, ...port(3306, {}) });
    const role = new iam.CfnRole(stack, "HostRole", { assumeRolePolicyDocument: trust("ec2.amazonaws.com"), policies: duty(["s3:GetObject", "logs:PutLogEvents", "kms:Decrypt"]) });
    const profile = new iam.CfnInstanceProfile(stack, "HostProfile", { roles: [role.ref] });
    const subnets = new rds.CfnDBSubnetGroup(stack, "DatabaseSubnets", { dbSubnetGroupDescription: "Data", subnetIds: cdk.Fn.split(",", shared("IsolatedSubnets")) });
    const monitoring = new iam.CfnRole(stack, "DatabaseMonitoringRole", { assumeRolePolicyDocument: trust("monitoring.rds.amazonaws.com"), policies: duty(["logs:PutLogEvents"]) });
    const parameters = new rds.CfnDBParameterGroup(stack, "DatabaseParameters", { family: "mariadb10.11", description: "TLS", parameters: { require_secure_transport: "1" } });
    const database = new rds.CfnDBInstance(stack, "Database", { engine: "mariadb", dbInstanceClass: "db.t4g.small", allocatedStorage: "20", storageEncrypted: true,
      kmsKeyId: shared("KeyArn"), manageMasterUserPassword: true, masterUsername: "vend", multiAz: true, dbSubnetGroupName: subnets.ref, dbParameterGroupName: parameters.ref,
      vpcSecurityGroups: [data.attrGroupId], backupRetentionPeriod: 35, deletionProtection: true, monitoringInterval: 60, monitoringRoleArn: monitoring.attrArn });
    new secrets.CfnRotationSchedule(stack, "DatabasePasswordChanges", { secretId: database.attrMasterUserSecretSecretArn, rotationRules: { automaticallyAfterDays: 30 } });
    const told = new iam.CfnRole(stack, "PasswordRole", { assumeRolePolicyDocument: trust("events.amazonaws.com"), policies: duty(["ssm:SendCommand"]) });
    new events.CfnRule(stack, "PasswordChanged", { eventPattern: { source: ["aws.secretsmanager"] }, targets: [{ id: "hosts", arn: "arn:aws:ssm:eu-central-1::document/AWS-RunShellScript", roleArn: told.attrArn }] });
    const application = new codedeploy.CfnApplication(stack, "Application", { computePlatform: "Server" });
    const halves = ["Blue", "Green"].map((word) => half(stack, word, profile, group, application));
    new elb.CfnListenerRule(stack, "Rule", { listenerArn: shared("HttpsListener"), priority: n + 1, conditions: [{ field: "host-header", hostHeaderConfig: { values: [`app${n}-live.apps.example.com`] } }],
      actions: [{ type: "forward", forwardConfig: { targetGroups: halves.map((targets, at) => ({ targetGroupArn: targets.ref, weight: at ? 0 : 100 })) } }] });
    new route53.CfnRecordSet(stack, "Record", { hostedZoneId: shared("Zone"), name: `app${n}-live.apps.example.com`, type: "A", aliasTarget: { dnsName: shared("BalancerDns"), hostedZoneId: shared("BalancerZone") } });
    const group2 = new logs.CfnLogGroup(stack, "LogGroup", { logGroupName: `/vend/production/app${n}/live`, kmsKeyId: shared("KeyArn"), retentionInDays: 90 });
    new logs.CfnMetricFilter(stack, "LogErrorFilter", { logGroupName: group2.ref, filterPattern: "ERROR", metricTransformations: [{ metricName: "errors", metricNamespace: "Vend", metricValue: "1" }] });
    new cloudwatch.CfnAlarm(stack, "LogErrors", { namespace: "Vend", metricName: "errors", statistic: "Sum", period: 300, evaluationPeriods: 1, threshold: 10, comparisonOperator: "GreaterThanOrEqualToThreshold" });
    resources += stack.node.findAll().filter((one) => cdk.CfnResource.isCfnResource(one)).length;
  }
  app.synth();
  return resources;
}

const [count, outdir, first] = process.argv.slice(2);
// Each class is loaded when it is used first. With a third argument a stack is made elsewhere first, and what comes after is told alone.
if (first) make(1, first);
const loaded = process.hrtime.bigint();
const resources = make(Number(count), outdir);
const done = process.hrtime.bigint();
const between = (from, to) => Number(to - from) / 1e9;
console.log(JSON.stringify({ loading: between(from, loaded), seconds: between(loaded, done), resources, peak_mb: process.resourceUsage().maxRSS / 1e3 }));
