//! What services of tests share that stand in for AWS's.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// One request: its first line, and its body.
pub fn asked(stream: &TcpStream) -> (String, Vec<u8>) {
    let mut reader = BufReader::new(stream);
    let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut first).expect("a request");
    while reader.read_line(&mut line).expect("a line of its head") > 2 {
        if let Some(text) = line.strip_prefix("content-length: ") {
            length = text.trim().parse().expect("a number of bytes");
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body of that length");
    (first, body)
}

/// The forms that a service was sent, in order.
pub type Forms = Arc<Mutex<Vec<String>>>;

/// A service that is asked by forms. `answer` has the name of what is asked, and all forms that came before; what begins with
/// `<Error>` is a refusal.
pub fn service(answer: fn(&str, &[String]) -> String) -> (SocketAddr, Forms) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let forms = Forms::default();
    let all = Arc::clone(&forms);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let form = String::from_utf8(asked(&stream).1).expect("a form");
            let action = action(&form).to_owned();
            let mut all = all.lock().expect("nobody panics with it");
            let inner = answer(&action, &all);
            all.push(form);
            drop(all);
            let (status, body) = match inner.starts_with("<Error>") {
                true => (400, format!("<ErrorResponse>{inner}</ErrorResponse>")),
                false => (
                    200,
                    format!("<{action}Response><{action}Result>{inner}</{action}Result></{action}Response>"),
                ),
            };
            let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length");
            let answer = format!("{head}: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).expect("somebody reads it");
        }
    });
    (address, forms)
}

/// What a form asks for.
pub fn action(form: &str) -> &str {
    let mut parts = form.split('&').filter_map(|part| part.strip_prefix("Action="));
    parts.next().expect("a form has an action")
}

/// A stack that holds a group of hosts of containers, and that group: one host is protected, one on its way out, one never was.
pub const GROUP_HELD: &str = "<StackResourceSummaries><member><LogicalResourceId>CapacityGroup</LogicalResourceId>\
    <PhysicalResourceId>shop-CapacityGroup-1</PhysicalResourceId><ResourceType>AWS::AutoScaling::AutoScalingGroup</ResourceType>\
    <ResourceStatus>CREATE_COMPLETE</ResourceStatus></member></StackResourceSummaries>";
pub const GROUP: &str = "<AutoScalingGroups><member><Instances>\
    <member><InstanceId>i-1</InstanceId><LifecycleState>InService</LifecycleState><ProtectedFromScaleIn>true</ProtectedFromScaleIn></member>\
    <member><InstanceId>i-2</InstanceId><LifecycleState>Terminating</LifecycleState><ProtectedFromScaleIn>true</ProtectedFromScaleIn></member>\
    <member><InstanceId>i-3</InstanceId><LifecycleState>InService</LifecycleState><ProtectedFromScaleIn>false</ProtectedFromScaleIn></member>\
    </Instances></member></AutoScalingGroups>";

/// The hosts whose protection forms take away.
pub fn released(forms: &[String]) -> Vec<&str> {
    let asked = forms.iter().filter(|own| action(own) == "SetInstanceProtection");
    let asked = asked.filter(|own| own.contains("ProtectedFromScaleIn=false"));
    let parts = asked.flat_map(|own| own.split('&'));
    parts
        .filter(|part| part.starts_with("InstanceIds.member."))
        .filter_map(|part| Some(part.split_once('=')?.1))
        .collect()
}
