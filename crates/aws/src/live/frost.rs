//! Does an environment's database refuse to write? A parameter of its stack says so, and nothing else does. Pure.

use crate::stack::Stack;

/// Of stacks whose data can leave.
const FROZEN: &str = "Frozen";

/// `None`: the stack knows nothing of it, because it was made before, or by other files.
pub fn is_frozen(stack: &Stack) -> Option<bool> {
    let mut all = stack.parameters.iter();
    all.find(|(id, _)| id == FROZEN).map(|(_, value)| value == "yes")
}

/// The parameters that make it so.
pub fn frozen(on: bool) -> Vec<(String, String)> {
    vec![(FROZEN.to_owned(), if on { "yes" } else { "no" }.to_owned())]
}
