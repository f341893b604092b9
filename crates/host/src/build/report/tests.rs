use model::{
    port::{Share, TestChanges},
    spec::build::ReportFormat::*,
};

use super::*;

fn read(format: ReportFormat, bytes: &[u8]) -> Result<Found, Error> {
    super::read(format, bytes, &Mask::default())
}

/// Sums and failures of one file: total, passed, failed, skipped, milliseconds.
#[track_caller]
fn check(format: ReportFormat, text: &str, sums: (u32, u32, u32, u32, u64), failures: &[(&str, &str)]) {
    let mut report = empty("unit");
    add(&mut report, &read(format, text.as_bytes()).unwrap());
    let found = (
        report.total,
        report.passed,
        report.failed,
        report.skipped,
        report.duration_ms,
    );
    assert_eq!(found, sums, "{text}");
    let found: Vec<_> = report
        .failures
        .iter()
        .map(|(name, why)| (name.as_str(), why.as_str()))
        .collect();
    assert_eq!(found, failures);
}

/// Covered and all lines, covered and all branches.
#[track_caller]
fn reaches(format: ReportFormat, text: &str, expected: (u64, u64, u64, u64)) {
    let Found::Coverage(found) = read(format, text.as_bytes()).unwrap() else {
        panic!("tests: {text}")
    };
    let found = (
        found.lines.covered,
        found.lines.total,
        found.branches.covered,
        found.branches.total,
    );
    assert_eq!(found, expected, "{text}");
}

#[track_caller]
fn refused(format: ReportFormat, bytes: &[u8], fragment: &str) {
    let error = read(format, bytes).unwrap_err().to_string();
    assert!(error.contains(fragment), "{error}");
}

#[test]
fn junit_as_pytest_surefire_and_others_write_it() {
    check(
        JunitXml,
        r#"<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" errors="0" failures="1" tests="3">
           <testcase classname="tests.test_app" name="test_ok" time="0.010" />
           <testcase classname="tests.test_app" name="test_bad" time="1.5"><failure message="assert 1 == &quot;2&quot;">trace</failure></testcase>
           <testcase classname="tests.test_app" name="test_later"><skipped type="pytest.skip" message="later"/></testcase>
           </testsuite></testsuites>"#,
        (3, 1, 1, 1, 1510),
        &[("tests.test_app.test_bad", "assert 1 == \"2\"")],
    );
    check(
        JunitXml,
        r#"<testsuite><properties><property name="x" value="y"/></properties><testcase name="a"><error>  boom </error>
           <system-out><![CDATA[<failure/>]]></system-out></testcase><testsuite><testcase name="b" time="1,000.5"/></testsuite></testsuite>"#,
        (2, 1, 1, 0, 1_000_500),
        &[("a", "boom")],
    );
    check(
        JunitXml,
        r#"<testsuite><testcase name="a"><failure type="T"/><error message="tear-down"/></testcase></testsuite>"#,
        (1, 0, 1, 0, 0),
        &[("a", "T")],
    );
    check(JunitXml, "<testsuites/>", (0, 0, 0, 0, 0), &[]);
}

#[test]
fn nunit_of_both_generations() {
    check(
        NunitXml,
        r#"<test-results name="app.dll" total="4" errors="0" failures="1"><test-suite type="TestFixture" name="F"><results>
           <test-case name="N.F.Good" executed="True" result="Success" success="True" time="0.25" asserts="1"/>
           <test-case name="N.F.Bad" executed="True" result="Failure" success="False" time="0.5">
             <failure><message><![CDATA[Expected: 1]]></message><stack-trace><![CDATA[at X]]></stack-trace></failure></test-case>
           <test-case name="N.F.Later" executed="False" result="Ignored"><reason><message>not now</message></reason></test-case>
           <test-case name="N.F.Old" executed="True" success="True" time="0.1"/>
           </results></test-suite></test-results>"#,
        (4, 2, 1, 1, 850),
        &[("N.F.Bad", "Expected: 1")],
    );
    check(
        Nunit3Xml,
        r#"<test-run id="2" testcasecount="4"><test-suite type="Assembly"><test-suite type="TestFixture">
           <test-case id="1" name="Good" fullname="N.F.Good" result="Passed" duration="0.1"/>
           <test-case id="2" name="Bad" fullname="N.F.Bad" result="Failed" label="Error" duration="0.2">
             <failure><message><![CDATA[boom]]></message><stack-trace>at X</stack-trace></failure></test-case>
           <test-case id="3" name="W" fullname="N.F.W" result="Warning"/>
           <test-case id="4" name="S" fullname="N.F.S" result="Skipped"><reason><message>x</message></reason></test-case>
           <test-case id="5" name="I" fullname="N.F.I" result="Inconclusive"/>
           </test-suite></test-suite></test-run>"#,
        (5, 2, 1, 2, 300),
        &[("N.F.Bad", "boom")],
    );
}

#[test]
fn testng_without_its_configuration_methods() {
    check(
        TestNgXml,
        r#"<testng-results skipped="1" failed="1" total="3" passed="1"><suite name="S"><test name="T"><class name="com.x.AppTest">
           <test-method status="PASS" signature="setUp()" name="setUp" is-config="true" duration-ms="7"/>
           <test-method status="PASS" name="good" duration-ms="20"/>
           <test-method status="FAIL" name="bad" duration-ms="30"><exception class="java.lang.AssertionError">
             <message><![CDATA[ expected [1] ]]></message><full-stacktrace>at</full-stacktrace></exception></test-method>
           <test-method status="SKIP" name="later" duration-ms="0"/></class></test></suite></testng-results>"#,
        (3, 1, 1, 1, 50),
        &[("com.x.AppTest.bad", "expected [1]")],
    );
}

#[test]
fn visual_studio_in_both_encodings() {
    let trx = r#"<?xml version="1.0"?><TestRun xmlns="http://microsoft.com/schemas/VisualStudio/TeamTest/2010"><Results>
        <UnitTestResult testName="N.T.Good" outcome="Passed" duration="00:00:01.5000000"/>
        <UnitTestResult testName="N.T.Bad" outcome="Failed" duration="00:01:00.0000000"><Output><StdOut>hello</StdOut>
          <ErrorInfo><Message>Assert.True() Failure</Message><StackTrace>at</StackTrace></ErrorInfo></Output></UnitTestResult>
        <UnitTestResult testName="N.T.Later" outcome="NotExecuted"/>
        </Results><ResultSummary outcome="Failed"><Counters total="3"/></ResultSummary></TestRun>"#;
    let expected = (3, 1, 1, 1, 61_500);
    let failures = [("N.T.Bad", "Assert.True() Failure")];
    check(VisualStudioTrx, trx, expected, &failures);
    check(VisualStudioTrx, &format!("\u{feff}{trx}"), expected, &failures);
    let wide: Vec<u8> = [0xFF, 0xFE]
        .into_iter()
        .chain(trx.encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    let Found::Cases(cases) = read(VisualStudioTrx, &wide).unwrap() else {
        panic!("coverage")
    };
    assert_eq!((cases.len(), cases[1].duration_ms), (3, 60_000));
}

#[test]
fn cucumber_scenarios_are_tests() {
    check(
        CucumberJson,
        r#"[{"name":"Login","elements":[
            {"type":"background","name":"","steps":[{"name":"a user","result":{"status":"passed","duration":1000000}}]},
            {"type":"scenario","name":"good","before":[{"result":{"status":"passed","duration":1000000}}],"steps":[{"name":"x","result":{"status":"passed","duration":2000000}}]},
            {"type":"background","steps":[{"name":"a user","result":{"status":"failed","duration":0,"error_message":"no user"}}]},
            {"type":"scenario","name":"bad","steps":[{"name":"x","result":{"status":"skipped"}}]},
            {"type":"scenario","name":"new","steps":[{"name":"y","result":{"status":"undefined"}}]},
            {"type":"scenario","name":"later","steps":[{"name":"z","result":{"status":"pending"}}]}]},
          {"name":"Empty","id":7}]"#,
        (4, 1, 2, 1, 4),
        &[
            ("Login: bad", "no user"),
            ("Login: new", "the step `y` is undefined"),
        ],
    );
}

#[test]
fn coverage_is_counted_or_the_whole_is_taken() {
    reaches(
        CloverXml,
        r#"<coverage generated="1"><project timestamp="1"><metrics statements="10" coveredstatements="8" conditionals="4" coveredconditionals="1" methods="3"/>
           <file name="a.js"><metrics statements="10" coveredstatements="8"/><line num="1" count="1" type="stmt"/></file></project></coverage>"#,
        (8, 10, 1, 4),
    );
    reaches(
        CloverXml,
        r#"<coverage><project><file name="a.php"><line num="1" type="method" count="1"/><line num="2" type="stmt" count="3"/><line num="3" type="stmt" count="0"/></file></project></coverage>"#,
        (1, 2, 0, 0),
    );
    reaches(
        CoberturaXml,
        r#"<?xml version="1.0" ?><!DOCTYPE coverage SYSTEM 'http://cobertura.sourceforge.net/xml/coverage-04.dtd'><coverage line-rate="0.9"><packages><package><classes><class name="a">
           <methods><method name="f"><lines><line number="1" hits="1"/></lines></method></methods>
           <lines><line number="1" hits="1"/><line number="2" hits="0"/><line number="3" hits="2" branch="true" condition-coverage="50% (1/2)"/></lines>
           </class></classes></package></packages></coverage>"#,
        (2, 3, 1, 2),
    );
    reaches(
        JacocoXml,
        r#"<?xml version="1.0"?><!DOCTYPE report PUBLIC "-//JACOCO//DTD Report 1.1//EN" "report.dtd"><report name="x"><package name="p"><counter type="LINE" missed="9" covered="9"/></package>
           <counter type="INSTRUCTION" missed="1" covered="1"/><counter type="BRANCH" missed="3" covered="5"/><counter type="LINE" missed="2" covered="6"/></report>"#,
        (6, 8, 5, 8),
    );
    reaches(
        SimpleCov,
        r#"{"RSpec":{"coverage":{"/a.rb":{"lines":[1,0,null,2],"branches":{"[:if, 0]":{"[:then, 1]":1,"[:else, 2]":0}}},"/b.rb":[0,null]},"timestamp":1},
            "Minitest":{"coverage":{"/a.rb":{"lines":[0,3,null,0],"branches":{"[:if, 0]":{"[:then, 1]":0,"[:else, 2]":4}}}},"timestamp":2}}"#,
        (3, 4, 2, 2),
    );
    reaches(
        SimpleCov,
        r#"{"meta":{"simplecov_version":"0.22"},"coverage":{"/a.rb":{"lines":[null,1,0,"ignored"],"branches":[{"type":"then","coverage":0},{"type":"else","coverage":"ignored"}]}},"groups":{}}"#,
        (1, 2, 0, 1),
    );
}

/// Every format that tells texts, with a secret in each of them across the 500th character, as such and encoded.
#[test]
fn a_secret_is_taken_out_before_a_text_is_cut() {
    const SECRET: &str = "hunter2&\"secret\"of-the-shop";
    const ENCODED: &str = "aHVudGVyMiYic2VjcmV0Im9mLXRoZS1zaG9w";
    let mask = Mask::new([SECRET]);
    let escaped = SECRET.replace('&', "&amp;").replace('"', "&quot;");
    let tell = |format: ReportFormat, file: &str, secret: &str| {
        // What is wrong with a file is told in a few words before the text.
        let words = if file.starts_with(['"', '{']) { 22 } else { 0 };
        let text = format!("{} {secret}", "x".repeat(489 - words));
        let found = super::read(format, file.replace('@', &text).as_bytes(), &mask);
        let told = format!("{found:?}");
        assert!(told.contains("xxx ***"), "{file}: {told}");
        for piece in ["hunter", "aHVudG", "dW50ZXI"] {
            assert!(!told.contains(piece), "{file}: {told}");
        }
    };
    for (format, file) in [
        (JunitXml, "<testsuite><testcase name='@'/></testsuite>"),
        (
            JunitXml,
            "<testsuite><testcase classname='@' name='n'/></testsuite>",
        ),
        (
            JunitXml,
            "<testsuite><testcase name='n'><failure message='@'/></testcase></testsuite>",
        ),
        (
            JunitXml,
            "<testsuite><testcase name='n'><error>@</error></testcase></testsuite>",
        ),
        (
            TestNgXml,
            "<testng-results><class name='@'><test-method name='n' status='PASS'/></class></testng-results>",
        ),
        (
            NunitXml,
            "<test-results><test-case name='n' result='Failure'><failure><message>@</message></failure></test-case></test-results>",
        ),
    ] {
        tell(format, file, &escaped);
        tell(format, file, ENCODED);
    }
    for file in [
        r#"[{"name": "@", "elements": [{"name": "s"}]}]"#,
        r#"[{"elements": [{"name": "s", "steps": [{"result": {"status": "failed", "error_message": "@"}}]}]}]"#,
        r#""@""#,
    ] {
        tell(CucumberJson, file, &SECRET.replace('"', "\\\""));
        tell(CucumberJson, file, ENCODED);
    }
    tell(SimpleCov, r#""@""#, ENCODED);
}

#[test]
fn a_text_is_whole_whatever_it_is_written_with() {
    check(
        JunitXml,
        "<testsuite><testcase name='n'><failure>\n1 &lt; 2 <![CDATA[& that]]><!-- no --> &#x2192; &it;</failure></testcase></testsuite>",
        (1, 0, 1, 0, 0),
        &[("n", "1 < 2 & that \u{2192} &it;")],
    );
}

#[test]
fn what_is_no_report_is_refused() {
    refused(JunitXml, b"", "expected");
    refused(JunitXml, b"<html><testcase name='x'/></html>", "`html`");
    refused(JunitXml, b"<testsuite><testcase></testsuite>", "well-formed");
    refused(JunitXml, b"<testsuite><testcase>", "ends too early");
    refused(JunitXml, b"<testsuite/><testsuite/>", "outermost");
    refused(
        JunitXml,
        br#"<!DOCTYPE x [<!ENTITY a "aaaa">]><testsuite/>"#,
        "entities",
    );
    refused(JunitXml, "<testsuite>".repeat(100).as_bytes(), "nested");
    refused(Nunit3Xml, b"<test-results/>", "`test-run` was expected");
    refused(CucumberJson, b"{}", "not JSON of this format");
    refused(CucumberJson, "[".repeat(10_000).as_bytes(), "JSON");
    refused(SimpleCov, b"{}", "no lines");
    refused(CoberturaXml, b"<coverage/>", "no lines");
    assert_eq!(
        read(JunitXml, &vec![b' '; FILE_BYTES + 1]),
        Err(Error::TooLarge(FILE_BYTES + 1))
    );
}

#[test]
fn the_pass_rate_leaves_skipped_tests_out() {
    let mut report = empty("unit");
    assert_eq!(pass_rate_percent(&[report.clone()]), 100.0);
    assert_eq!(coverage_percent(&[report.clone()]), None);
    (report.total, report.passed, report.failed, report.skipped) = (8, 3, 1, 4);
    assert_eq!(pass_rate_percent(&[report.clone()]), 75.0);
    let mut coverage = Coverage::default();
    [true, true, false, true]
        .into_iter()
        .for_each(|covered| coverage.lines.count(covered));
    report.coverage = Some(coverage);
    assert_eq!(coverage_percent(&[empty("x"), report]), Some(75.0));
}

fn run(tests: &[(&str, char, u64)]) -> Vec<Case> {
    let case = |(name, outcome, duration_ms): &(&str, char, u64)| Case {
        name: (*name).to_owned(),
        duration_ms: *duration_ms,
        outcome: match outcome {
            'P' => Outcome::Passed,
            'F' => Outcome::Failed(String::new()),
            _ => Outcome::Skipped,
        },
    };
    tests.iter().map(case).collect()
}

#[test]
fn runs_are_compared_with_those_before() {
    let mut history = History::default();
    assert_eq!(
        history.add(
            "unit",
            &run(&[("a", 'P', 100), ("b", 'F', 1), ("c", 'P', 100)]),
            None
        ),
        None
    );
    // As it is kept between builds.
    let mut history = History::read(&history.write().unwrap());
    let changes = history.add(
        "unit",
        &run(&[("a", 'F', 100), ("b", 'P', 1), ("c", 'P', 700), ("d", 'F', 1)]),
        None,
    );
    let changes = changes.unwrap();
    assert_eq!(
        (changes.new_failures, changes.fixed),
        (vec!["a".to_owned(), "d".to_owned()], vec!["b".to_owned()])
    );
    assert_eq!(changes.broke, ["a"], "the other one never ran before");
    assert_eq!((changes.flaky, changes.slower.len()), (Vec::<String>::new(), 1));
    assert_eq!(
        (changes.slower[0].name.as_str(), changes.slower[0].before_ms),
        ("c", 100)
    );
    let changes = history
        .add(
            "unit",
            &run(&[("a", 'P', 100), ("b", 'S', 1), ("d", 'F', 1)]),
            None,
        )
        .unwrap();
    assert_eq!(
        (changes.fixed.as_slice(), changes.flaky.as_slice()),
        (&["a".to_owned()][..], &["a".to_owned()][..])
    );
    assert!(changes.new_failures.is_empty(), "it failed before");
    assert_eq!(changes.summary(), "1 fixed, 1 flaky");
    assert_eq!(
        history.add("other", &run(&[("a", 'P', 1)]), None),
        None,
        "another group"
    );
    assert_eq!(History::read(b"no history"), History::default());
}

#[test]
fn no_history_is_written_that_would_not_be_read() {
    let case = |number: usize, name: &str| Case {
        name: format!("{number}{name}"),
        duration_ms: 1,
        outcome: Outcome::Passed,
    };
    let run = |name: &str| -> Vec<Case> { (0..10_000).map(|number| case(number, name)).collect() };
    let mut history = History::default();
    history.add("unit", &run(&"n".repeat(500)), None);
    let written = history.write().unwrap();
    assert_eq!(History::read(&written), history);
    // Of JSON, six bytes each.
    history.add("other", &run(&"\u{1}".repeat(500)), None);
    assert!(history.write().is_none());
}

#[test]
fn coverage_and_parameters_are_compared() {
    let mut history = History::default();
    let mut coverage = Coverage::default();
    coverage.lines.count(true);
    history.add("unit", &run(&[("p", 'P', 1), ("p", 'P', 1)]), Some(&coverage));
    coverage.lines.count(false);
    let changes = history
        .add("unit", &run(&[("p", 'P', 1), ("p", 'F', 1)]), Some(&coverage))
        .unwrap();
    assert_eq!(changes.coverage_before_percent, Some(100.0));
    assert_eq!(changes.new_failures, ["p"]);
    // A test that is gone for long is forgotten, and new when it comes back.
    for _ in 0..12 {
        history.add("unit", &run(&[("q", 'P', 1)]), None);
    }
    let changes = history.add("unit", &run(&[("p", 'F', 1)]), None).unwrap();
    assert_eq!(
        (changes.new_failures, changes.broke),
        (vec!["p".to_owned()], Vec::new())
    );
}

#[test]
fn any_bytes_give_a_value_or_an_error() {
    use proptest::prelude::*;
    proptest!(|(tail in proptest::collection::vec(any::<u8>(), 0..200), format in 0usize..10,
        parts in "(<testcase name=\"|/>|<failure>|</failure>|&#x;|\"|<testsuite>|</testsuite>|<!\\[CDATA\\[|<metrics |\\[|\\{|\"lines\":|null,|<class name=\"|<test-case ){0,20}")| {
        let (_, format) = ReportFormat::ALL[format];
        let roots = ["<testsuite>", "<test-results>", "<test-run>", "[", "<testng-results>", "<TestRun>", "<coverage>", "<coverage>", "<report>", "{"];
        let root = roots[ReportFormat::ALL.iter().position(|(_, own)| *own == format).unwrap()];
        let mut text = format!("{root}{parts}").into_bytes();
        text.extend(tail);
        let _ = read(format, &text);
    });
}

#[test]
fn reports_of_a_fan_out_are_one_for_each_group() {
    let part = |group: &str, passed: u32, failed: u32, duration_ms: u64, covered: u64| {
        let mut report = empty(group);
        (report.total, report.passed, report.failed) = (passed + failed, passed, failed);
        report.duration_ms = duration_ms;
        report.failures = (0..failed).map(|n| (format!("t{n}"), String::new())).collect();
        report.coverage = (covered > 0).then(|| Coverage {
            lines: Share { covered, total: 100 },
            ..Coverage::default()
        });
        report.changes = Some(TestChanges {
            coverage_before_percent: Some(1.0),
            ..TestChanges::default()
        });
        report
    };
    let merged = merge([
        part("unit", 3, 0, 20, 40),
        part("ui", 1, 0, 5, 0),
        part("unit", 5, 2, 10, 50),
        part("lines", 0, 0, 0, 25),
    ]);
    let told: Vec<_> = merged
        .iter()
        .map(|report| {
            (
                report.group.as_str(),
                report.total,
                report.passed,
                report.failed,
                report.duration_ms,
            )
        })
        .collect();
    assert_eq!(
        told,
        [("unit", 10, 8, 2, 20), ("ui", 1, 1, 0, 5), ("lines", 0, 0, 0, 0)]
    );
    assert_eq!(merged[0].failures.len(), 2);
    let lines: Vec<_> = merged
        .iter()
        .map(|report| {
            report
                .coverage
                .map(|coverage| (coverage.lines.covered, coverage.lines.total))
        })
        .collect();
    assert_eq!(lines, [Some((90, 200)), None, Some((25, 100))]);
    assert_eq!(coverage_percent(&merged[..1]), Some(45.0));
    // The first and the others alike.
    let before = merged.iter().filter_map(|report| report.changes.as_ref());
    assert_eq!(
        before
            .filter(|changes| changes.coverage_before_percent.is_some())
            .count(),
        0
    );
}
