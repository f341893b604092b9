//! What AWS says when it does not do what it was asked for.

use serde_json::Value;

use super::{
    Node,
    http::Answer,
    retry::{self, Why},
};
use crate::call::{self, Call};

/// AWS's name of an error, and its message: in any of the protocols.
pub(super) fn refusal(answer: &Answer) -> (String, String) {
    if let Ok(json) = serde_json::from_slice::<Value>(&answer.body) {
        let header = answer
            .headers
            .get("x-amzn-errortype")
            .and_then(|kind| kind.to_str().ok());
        let kind = json["__type"].as_str().or(header).unwrap_or_default();
        let kind = kind.split(':').next().unwrap_or_default();
        let kind = kind.rsplit('#').next().unwrap_or_default();
        let message = json["message"].as_str().or(json["Message"].as_str());
        return (kind.to_owned(), message.unwrap_or_default().to_owned());
    }
    let node = Node::parse(&answer.body).unwrap_or_default();
    let error = node
        .get("Error")
        .or_else(|| node.at(&["Errors", "Error"]))
        .unwrap_or(&node);
    match error.maybe("Code") {
        Some(code) => (code, error.text("Message").to_owned()),
        None => (answer.status.to_string(), "no reason is given".to_owned()),
    }
}

/// The same of an answer that says 200: S3 begins it before it knows how the end of an upload, or the deletion of many objects,
/// turns out (its API reference, CompleteMultipartUpload and DeleteObjects). Of several refusals one that stays comes first.
pub(super) fn within(call: &Call, answer: &Answer) -> Option<(String, String)> {
    let late = [call::END_UPLOAD.operation, call::DELETE_OBJECTS.operation];
    if !late.contains(&call.operation) {
        return None;
    }
    let node = Node::parse(&answer.body)?;
    let errors: Vec<&Node> = match node.name == "Error" {
        true => vec![&node],
        false => node.children.iter().filter(|own| own.name == "Error").collect(),
    };
    let stays = |own: &&&Node| retry::why(answer.status, own.text("Code")) == Why::Final;
    let error = errors.iter().find(stays).or(errors.first())?;
    let message = match error.maybe("Key") {
        Some(key) => format!("{key}: {}", error.text("Message")),
        None => error.text("Message").to_owned(),
    };
    Some((error.text("Code").to_owned(), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &'static str) -> Answer {
        Answer {
            status: 200,
            headers: hyper::HeaderMap::new(),
            body: body.into(),
        }
    }

    #[test]
    fn what_an_answer_of_200_refuses_is_seen() {
        let deleted = "<DeleteResult><Deleted><Key>a</Key></Deleted></DeleteResult>";
        let both = "<DeleteResult><Error><Key>a</Key><Code>SlowDown</Code><Message>later</Message></Error>\
            <Error><Key>b</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>";
        let slow = "<DeleteResult><Error><Key>a</Key><Code>SlowDown</Code><Message>later</Message></Error></DeleteResult>";
        let broken = "<Error><Code>InternalError</Code><Message>try again</Message></Error>";
        let said = |code: &str, message: &str| Some((code.to_owned(), message.to_owned()));
        for (call, body, expected) in [
            (&call::DELETE_OBJECTS, deleted, None),
            (&call::DELETE_OBJECTS, both, said("AccessDenied", "b: no")),
            (&call::DELETE_OBJECTS, slow, said("SlowDown", "a: later")),
            (&call::END_UPLOAD, broken, said("InternalError", "try again")),
            // What is fetched is anybody's text.
            (&call::GET_PIECE, broken, None),
        ] {
            assert_eq!(within(call, &answer(body)), expected, "{body}");
        }
    }

    #[test]
    fn refusals_are_read_in_every_protocol() {
        let read = |body: &'static str| {
            refusal(&Answer {
                status: 400,
                ..answer(body)
            })
        };
        let (code, message) =
            read("<ErrorResponse><Error><Code>A</Code><Message>m</Message></Error></ErrorResponse>");
        assert_eq!((code.as_str(), message.as_str()), ("A", "m"));
        assert_eq!(
            read("<Response><Errors><Error><Code>B</Code></Error></Errors></Response>").0,
            "B"
        );
        assert_eq!(read("<Error><Code>NoSuchBucket</Code></Error>").0, "NoSuchBucket");
        assert_eq!(
            read(r#"{"__type":"com.amazon#C","message":"m"}"#),
            ("C".into(), "m".into())
        );
        assert_eq!(read("gone").0, "400");
    }
}
