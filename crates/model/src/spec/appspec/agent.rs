//! An appspec as the agent holds it, and how the agent comes to it: the same checks in the same order with the same
//! words, but going on after the first. <https://github.com/aws/aws-codedeploy-agent>, release 1.8.1.

use serde_json::{Value as Json, json};

use super::{acl, psych, range};
use crate::{
    Problem,
    spec::{
        read::Reader,
        yaml::{Node, Value},
    },
};

#[derive(Debug, Default)]
pub(super) struct Agent {
    pub file_exists_behavior: Option<String>,
    pub hooks: Vec<(String, Vec<Script>)>,
    pub files: Vec<(String, String)>,
    pub permissions: Vec<Permission>,
}

#[derive(Debug)]
pub(super) struct Script {
    pub location: String,
    pub runas: Option<String>,
    pub sudo: Option<Node>,
    pub timeout: u32,
}

#[derive(Debug)]
pub(super) struct Permission {
    pub object: String,
    pub pattern: String,
    pub except: Vec<String>,
    pub types: Vec<String>,
    pub owner: Option<Node>,
    pub group: Option<Node>,
    /// Padded to three digits.
    pub mode: Option<String>,
    pub acls: Option<Vec<String>>,
    pub context: Option<Context>,
}

#[derive(Debug)]
pub(super) struct Context {
    pub user: Option<String>,
    pub kind: String,
    pub range: Option<String>,
}

const EMPTY: &str = "The deployment failed because the application specification file was empty. Make sure your AppSpec \
                     file defines at minimum the 'version' and 'os' properties.";
const NO_LOCATION: &str = "The deployment failed because the application specification file specifies a script with no \
                           location value. Specify the location in the hooks section of the AppSpec file, and then try \
                           again.";
const NO_SOURCE: &str = "The deployment failed because the application specification file specifies a destination file, \
                         but no source file. Update the files section of the AppSpec file, and then try again.";
const NO_OBJECT: &str = "The deployment failed because a permission listed in the application specification file has no \
                         object value. Update the permissions section of the AppSpec file, and then try again.";
const BAD_TIMEOUT: &str = "The deployment failed because an invalid timeout value was provided for a script in the \
                           application specification file. Make corrections in the hooks section of the AppSpec file, \
                           and then try again.";

/// Reads what the agent would; `None` when there is nothing to read.
pub(super) fn read(reader: &mut Reader<'_>, root: Option<&Node>) -> Option<Agent> {
    let Some(root) = root.filter(|root| psych::truthy(root)) else {
        let problem = Problem::error(reader.file, 0, 0, EMPTY);
        reader
            .problems
            .push(problem.help("write at least `version: 0.0` and `os: linux`"));
        return None;
    };
    if let Value::Sequence(_) = root.value {
        reader.error(root, "an appspec must be a mapping, not a list");
        return None;
    }
    if let Some((node, class)) = psych::refused(root) {
        reader
            .error(node, format!("Tried to load unspecified class: {class}"))
            .help = Some("quote the text".to_owned());
        return None;
    }
    version(reader, root);
    os(reader, root);
    let file_exists_behavior = behavior(reader, root);
    let hooks = root
        .get("hooks")
        .map(|node| hooks(reader, node))
        .unwrap_or_default();
    let files = root
        .get("files")
        .map(|node| files(reader, node))
        .unwrap_or_default();
    let permissions = root
        .get("permissions")
        .map(|node| permissions(reader, node))
        .unwrap_or_default();
    Some(Agent {
        file_exists_behavior,
        hooks,
        files,
        permissions,
    })
}

/// The place of a key's value, or of the whole mapping when it is absent.
fn at<'n>(root: &'n Node, key: &str) -> &'n Node {
    root.get(key).unwrap_or(root)
}

fn version(reader: &mut Reader<'_>, root: &Node) {
    let value = root.get("version").and_then(psych::scalar);
    if matches!(value, Some(psych::Scalar::Int(0)))
        || matches!(value, Some(psych::Scalar::Float(number)) if number == 0.0)
    {
        return;
    }
    let text = root.get("version").map(psych::to_s).unwrap_or_default();
    let message = format!(
        "The deployment failed because an invalid version value ({text}) was entered in the application specification \
         file. Make sure your AppSpec file specifies \"0.0\" as the version, and then try again."
    );
    let help = match value {
        Some(psych::Scalar::Text(text)) if text.trim().parse() == Ok(0.0) => {
            "write `version: 0.0` without quotes: it must be a number"
        }
        _ => "write `version: 0.0`",
    };
    reader.error(at(root, "version"), message).help = Some(help.to_owned());
}

fn os(reader: &mut Reader<'_>, root: &Node) {
    let text = root.get("os").map(psych::to_s).unwrap_or_default();
    if root.get("os").and_then(psych::scalar) == Some(psych::Scalar::Text("linux".to_owned())) {
        return;
    }
    let message = format!(
        "The deployment failed because the application specification file specifies an unsupported operating system \
         ({text}). Specify either \"linux\" or \"windows\" in the os section of the AppSpec file, and then try again."
    );
    reader.error(at(root, "os"), message).help = Some("hosts run Linux: write `os: linux`".to_owned());
}

fn behavior(reader: &mut Reader<'_>, root: &Node) -> Option<String> {
    let node = root
        .get("file_exists_behavior")
        .filter(|node| psych::scalar(node) != Some(psych::Scalar::Nil))?;
    let text = psych::to_s(node);
    if ["DISALLOW", "OVERWRITE", "RETAIN"].contains(&text.as_str()) {
        return Some(text);
    }
    let message = format!(
        "The deployment failed because an invalid file_exists_behavior value ({text}) was entered in the application \
         specification file. Make sure your AppSpec file specifies one of DISALLOW,OVERWRITE,RETAIN as the \
         file_exists_behavior, and then try again."
    );
    reader.error(node, message);
    None
}

fn items<'n>(reader: &mut Reader<'_>, node: &'n Node, what: &str) -> &'n [Node] {
    match &node.value {
        _ if !psych::truthy(node) => &[],
        Value::Sequence(items) => items,
        _ => {
            let kind = node.kind();
            reader.error(node, format!("`{what}` must be a list, not {kind}"));
            &[]
        }
    }
}

fn entries<'n>(reader: &mut Reader<'_>, node: &'n Node, what: &str) -> Option<&'n Node> {
    if let Value::Mapping(_) = node.value {
        return Some(node);
    }
    let kind = node.kind();
    reader.error(node, format!("{what} must be a mapping, not {kind}"));
    None
}

fn hooks(reader: &mut Reader<'_>, node: &Node) -> Vec<(String, Vec<Script>)> {
    if !psych::truthy(node) {
        return Vec::new();
    }
    let Value::Mapping(hooks) = &node.value else {
        let kind = node.kind();
        reader.error(node, format!("`hooks` must be a mapping, not {kind}"));
        return Vec::new();
    };
    let mut read = Vec::new();
    for (key, value) in hooks {
        if psych::scalar(value) == Some(psych::Scalar::Nil) {
            continue;
        }
        let name = psych::to_s(key);
        let scripts = items(reader, value, &name);
        let scripts = scripts.iter().filter_map(|script| self::script(reader, script));
        read.push((name, scripts.collect()));
    }
    read
}

fn script(reader: &mut Reader<'_>, node: &Node) -> Option<Script> {
    let node = entries(reader, node, "a script")?;
    let location = text(node, "location").map(|text| text.trim().to_owned());
    let Some(location) = location.filter(|location| !location.is_empty()) else {
        reader.error(at(node, "location"), NO_LOCATION);
        return None;
    };
    let timeout = timeout(reader, node);
    Some(Script {
        location,
        runas: text(node, "runas").map(|text| text.trim().to_owned()),
        sudo: node.get("sudo").cloned(),
        timeout: timeout?,
    })
}

/// Ruby's text of a value that is there and not nil.
fn text(node: &Node, key: &str) -> Option<String> {
    node.get(key)
        .filter(|value| psych::scalar(value) != Some(psych::Scalar::Nil))
        .map(psych::to_s)
}

fn timeout(reader: &mut Reader<'_>, script: &Node) -> Option<u32> {
    let Some(node) = script.get("timeout").filter(|node| psych::truthy(node)) else {
        return Some(3600);
    };
    let seconds = match psych::scalar(node) {
        Some(psych::Scalar::Int(seconds)) => seconds,
        // Saturates, as a cast of a float does.
        Some(psych::Scalar::Float(seconds)) => seconds as i128,
        Some(psych::Scalar::Text(text)) => psych::to_i(&text),
        _ => {
            let kind = node.kind();
            reader.error(node, format!("`timeout` must be a number of seconds, not {kind}"));
            return None;
        }
    };
    if seconds <= 0 {
        reader.error(node, BAD_TIMEOUT).help = Some("write a number of seconds, at least 1".to_owned());
        return None;
    }
    Some(u32::try_from(seconds).unwrap_or(u32::MAX))
}

fn files(reader: &mut Reader<'_>, node: &Node) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for item in items(reader, node, "files") {
        let Some(item) = entries(reader, item, "a file mapping") else {
            continue;
        };
        match (text(item, "source"), text(item, "destination")) {
            (Some(source), Some(destination)) => files.push((source, destination)),
            (None, _) => {
                reader.error(at(item, "source"), NO_SOURCE);
            }
            (Some(source), None) => {
                let message = format!(
                    "The deployment failed because the application specification file specifies only a source file \
                     ({source}). Add the name of the destination file to the files section of the AppSpec file, and then \
                     try again."
                );
                reader.error(at(item, "destination"), message);
            }
        }
    }
    files
}

fn permissions(reader: &mut Reader<'_>, node: &Node) -> Vec<Permission> {
    let list = items(reader, node, "permissions");
    list.iter().filter_map(|item| permission(reader, item)).collect()
}

fn permission(reader: &mut Reader<'_>, node: &Node) -> Option<Permission> {
    let node = entries(reader, node, "a permission")?;
    let object = text(node, "object").map(|text| text.trim().to_owned());
    let Some(object) = object.filter(|object| !object.is_empty()) else {
        reader.error(at(node, "object"), NO_OBJECT);
        return None;
    };
    let list = |reader: &mut Reader<'_>, key: &str| {
        let node = node.get(key)?;
        Some(
            items(reader, node, key)
                .iter()
                .map(psych::to_s)
                .collect::<Vec<_>>(),
        )
    };
    let except = list(reader, "except").unwrap_or_default();
    let types = types(reader, node);
    let mode = node
        .get("mode")
        .filter(|mode| psych::scalar(mode) != Some(psych::Scalar::Nil))
        .and_then(|mode| self::mode(reader, mode));
    let acls = node
        .get("acls")
        .filter(|acls| psych::scalar(acls) != Some(psych::Scalar::Nil))
        .map(|acls| self::acls(reader, acls));
    let context = node
        .get("context")
        .filter(|context| psych::scalar(context) != Some(psych::Scalar::Nil))
        .and_then(|context| self::context(reader, context));
    let given = |key: &str| {
        node.get(key)
            .filter(|value| psych::scalar(value) != Some(psych::Scalar::Nil))
    };
    Some(Permission {
        object,
        pattern: text(node, "pattern").unwrap_or_else(|| "**".to_owned()),
        except,
        types,
        owner: given("owner").cloned(),
        group: given("group").cloned(),
        mode,
        acls,
        context,
    })
}

fn types(reader: &mut Reader<'_>, permission: &Node) -> Vec<String> {
    let Some(node) = permission.get("type").filter(|node| psych::truthy(node)) else {
        return vec!["file".to_owned(), "directory".to_owned()];
    };
    let mut types = Vec::new();
    for item in items(reader, node, "type") {
        let text = psych::to_s(item);
        if text == "file" || text == "directory" {
            types.push(text);
            continue;
        }
        let message = format!(
            "The deployment failed because the application specification file specifies a permission for an object type \
             not supported for permissions ({text}). Update the permissions section of the AppSpec file, and then try \
             again."
        );
        reader.error(item, message).help = Some("types are `file` and `directory`".to_owned());
    }
    types
}

fn mode(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = format!("{:0>3}", psych::to_s(node));
    let written = node.text().unwrap_or_default();
    let octal = matches!(psych::scalar(node), Some(psych::Scalar::Int(_)))
        && written.starts_with('0')
        && written != "0";
    let quote = octal.then(|| {
        format!("without quotes YAML reads {written} as an octal number, which is {text} in decimal: write `mode: \"{written}\"`")
    });
    if text.chars().count() > 4 {
        let message = format!(
            "The deployment failed because the length of a permissions mode ({text}) in the application specification \
             file is invalid. Permissions modes must be between one and four characters long. Update the permissions \
             section of the AppSpec file, and then try again."
        );
        reader.error(node, message).help = quote;
        return None;
    }
    if let Some(wrong) = text.chars().find(|c| !('0'..='7').contains(c)) {
        let message = format!(
            "The deployment failed because the permissions mode ({text}) in the application specification file contains \
             an invalid character ({wrong}). Update the permissions section of the AppSpec file, and then try again."
        );
        reader.error(node, message).help = quote;
        return None;
    }
    if octal && written.trim_start_matches('0') != text.trim_start_matches('0') {
        let message = format!("`mode: {written}` gives the mode {text:0>4} on AWS and here, not {written}");
        reader.warn(node, message).help = quote;
    }
    Some(text)
}

fn acls(reader: &mut Reader<'_>, node: &Node) -> Vec<String> {
    let mut acls = Vec::new();
    for item in items(reader, node, "acls") {
        let Some(psych::Scalar::Text(text)) = psych::scalar(item) else {
            let kind = item.kind();
            reader
                .error(item, format!("an entry of `acls` must be text, not {kind}"))
                .help = Some("quote it".to_owned());
            continue;
        };
        match acl::entry(&text) {
            Ok(entry) => acls.push(entry),
            Err(message) => {
                reader.error(item, message).help =
                    Some("an entry is `[default:]user|group|mask|other[:name]:rwx`".to_owned());
            }
        }
    }
    acls
}

fn context(reader: &mut Reader<'_>, node: &Node) -> Option<Context> {
    let Some(kind) = text(node, "type") else {
        let message = format!(
            "The deployment failed because the application specification file specifies an invalid context type ({}). \
             Update the permissions section of the AppSpec file, and then try again.",
            psych::inspect(node)
        );
        reader.error(node, message).help =
            Some("a context needs a `type`, such as `httpd_sys_content_t`".to_owned());
        return None;
    };
    let range = match text(node, "range").map(|text| range::range(&text)) {
        None => None,
        Some(Ok(range)) => Some(range),
        Some(Err(message)) => {
            reader.error(at(node, "range"), message);
            return None;
        }
    };
    Some(Context {
        user: text(node, "name"),
        kind,
        range,
    })
}

impl Agent {
    /// The agent's own view, as the recorded cases write it.
    pub(super) fn json(&self) -> Json {
        let script = |script: &Script| {
            json!({
                "location": script.location,
                "runas": script.runas,
                "sudo": script.sudo.as_ref().map(psych::json),
                "timeout": script.timeout,
            })
        };
        let hooks: serde_json::Map<String, Json> = self
            .hooks
            .iter()
            .map(|(name, scripts)| (name.clone(), scripts.iter().map(script).collect()))
            .collect();
        let files: Vec<Json> = self
            .files
            .iter()
            .map(|(source, destination)| json!({ "source": source, "destination": destination }))
            .collect();
        json!({
            "version": 0.0,
            "os": "linux",
            "file_exists_behavior": self.file_exists_behavior,
            "files": files,
            "hooks": hooks,
            "permissions": self.permissions.iter().map(Permission::json).collect::<Vec<_>>(),
        })
    }
}

impl Permission {
    fn json(&self) -> Json {
        let context = self.context.as_ref().map(|context| {
            json!({ "user": context.user, "role": null, "type": context.kind, "range": context.range })
        });
        json!({
            "object": self.object,
            "pattern": self.pattern,
            "except": self.except,
            "type": self.types,
            "owner": self.owner.as_ref().map(psych::json),
            "group": self.group.as_ref().map(psych::json),
            "mode": self.mode,
            "acls": self.acls,
            "context": context,
        })
    }
}
