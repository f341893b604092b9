//! How far a request departs from RFC 9112, in the words of ALB's desync mitigation. What is `Severe` or `Ambiguous` in
//! the framing of a body is refused here; the log says under which of ALB's names.

use super::parse;

/// A classification and its reason.
pub type Class = (&'static str, &'static str);

const ACCEPTABLE: &str = "Acceptable";
const AMBIGUOUS: &str = "Ambiguous";
const SEVERE: &str = "Severe";

/// A GET or HEAD says that it has a body, and that this is empty.
pub const EMPTY_BODY: Class = (ACCEPTABLE, "GetHeadZeroContentLength");
/// A GET or HEAD has a body, of some length or in chunks.
pub const BODY: Class = (AMBIGUOUS, "UndefinedContentLengthSemantics");
pub const CHUNKS: Class = (AMBIGUOUS, "UndefinedTransferEncodingSemantics");

/// Of what a client was told when its request was refused; none where ALB has no name for it.
pub fn of(words: &str) -> Option<Class> {
    Some(match words {
        parse::TWO_LENGTHS => (SEVERE, "MultipleContentLength"),
        parse::SAME_LENGTHS => (AMBIGUOUS, "DuplicateContentLength"),
        parse::BAD_LENGTH => (SEVERE, "BadContentLength"),
        parse::TWO_CODINGS => (SEVERE, "MultipleTransferEncodingChunked"),
        parse::BAD_CODING => (SEVERE, "BadTransferEncoding"),
        parse::BOTH => (AMBIGUOUS, "BothTeClPresent"),
        parse::BAD_FIELD => (SEVERE, "BadHeader"),
        parse::BAD_VERSION => (SEVERE, "BadVersion"),
        parse::BAD_METHOD => (SEVERE, "BadMethod"),
        parse::BAD_TARGET => (SEVERE, "BadUri"),
        parse::SPACE => (ACCEPTABLE, "SpaceInUri"),
        _ => return None,
    })
}
