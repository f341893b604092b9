//! XML of answers as a tree. Answers come over the network: their depth and their number of elements are limited.

use quick_xml::{Reader, events::Event};

const DEPTH: usize = 64;
const NODES: usize = 2_000_000;

/// An element: its local name, its own text, and what is in it. Attributes carry namespaces only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    pub name: String,
    pub text: String,
    pub children: Vec<Node>,
}

impl Node {
    /// Reads a document. None for what is no XML, or is beyond the limits.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut reader = Reader::from_str(text);
        // The last one is open; the first holds the document.
        let mut open = vec![Self::default()];
        let mut count = 0;
        loop {
            match reader.read_event().ok()? {
                Event::Start(element) => {
                    count += 1;
                    if open.len() > DEPTH || count > NODES {
                        return None;
                    }
                    let name = element.local_name().as_ref().to_owned();
                    open.push(Self {
                        name,
                        ..Self::default()
                    });
                }
                Event::Empty(element) => {
                    let name = element.local_name().as_ref().to_owned();
                    open.last_mut()?.children.push(Self {
                        name,
                        ..Self::default()
                    });
                }
                Event::End(_) => {
                    let done = open.pop()?;
                    open.last_mut()?.children.push(done);
                }
                Event::Text(text) => open.last_mut()?.text.push_str(&text),
                Event::CData(text) => open.last_mut()?.text.push_str(&text),
                Event::GeneralRef(entity) => {
                    let written = format!("&{};", &*entity);
                    let plain = quick_xml::escape::unescape(&written).ok()?;
                    open.last_mut()?.text.push_str(&plain);
                }
                Event::Eof if open.len() == 1 => return open.pop()?.children.pop(),
                Event::Eof | Event::DocType(_) => return None,
                _ => {}
            }
        }
    }

    /// The element as XML again.
    pub fn xml(&self) -> String {
        let inside: String = self.children.iter().map(Self::xml).collect();
        let text = match inside.is_empty() {
            true => quick_xml::escape::escape(self.text.as_str()).into_owned(),
            false => inside,
        };
        format!("<{0}>{text}</{0}>", self.name)
    }

    /// The first element of this name in this one.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The element at the end of a path of names.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, name| node.get(name))
    }

    /// The trimmed text of an element in this one; empty where there is none.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).map_or("", |node| node.text.trim())
    }

    /// The same, where an empty text is none.
    pub fn maybe(&self, name: &str) -> Option<String> {
        Some(self.text(name))
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }

    /// The items of a list that is in this one. `member` in the Query protocol, `item` in EC2's; RDS calls each by its kind
    /// (`<DBSnapshots><DBSnapshot>`), so every element in a list is an item of it.
    pub fn list(&self, name: &str) -> std::slice::Iter<'_, Self> {
        self.get(name).map_or(&[][..], |list| &list.children).iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_aws_answers() {
        let text =
            b"<?xml version=\"1.0\"?><A xmlns=\"x\"><R><L><member><N>a &amp; b</N></member><member/></L>\
                     <n:Q> 7 </n:Q></R></A>";
        let node = Node::parse(text).unwrap();
        let result = node.get("R").unwrap();
        assert_eq!((node.name.as_str(), result.text("Q")), ("A", "7"));
        let names: Vec<&str> = result.list("L").map(|item| item.text("N")).collect();
        assert_eq!(names, ["a & b", ""]);
        assert_eq!(node.at(&["R", "Nothing"]), None);
        let text = b"<R><DBSnapshots><DBSnapshot><Id>a</Id></DBSnapshot><DBSnapshot><Id>b</Id></DBSnapshot></DBSnapshots></R>";
        let ids: Vec<String> = Node::parse(text)
            .unwrap()
            .list("DBSnapshots")
            .map(|own| own.text("Id").to_owned())
            .collect();
        assert_eq!(ids, ["a", "b"]);
    }

    #[test]
    fn writes_what_it_read() {
        let text = "<A><B>a &amp; b</B><C/></A>";
        let node = Node::parse(text.as_bytes()).unwrap();
        assert_eq!(Node::parse(node.xml().as_bytes()), Some(node));
    }

    #[test]
    fn refuses_what_is_not_or_goes_too_deep() {
        let deep = "<a>".repeat(100) + &"</a>".repeat(100);
        for bad in [
            "",
            "{}",
            "<a>",
            "<a></b>",
            "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
            &deep,
        ] {
            assert_eq!(Node::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
