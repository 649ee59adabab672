//! A payload arrives as it was sent or is refused with its path, on every way in and out.

use dtc_proto::dtc::{
    Branch, EnlistRequest, ExecuteRequest, ExecuteStreamItem, ExecuteStreamRequest, Payload,
    execute_stream_result, payload::Kind, transaction_service_client::TransactionServiceClient,
};
use integration_tests::{Alone, FakeParticipant, Heard, Reply, Rest, Speaks, agree};
use prost_types::{ListValue, Struct, Value as Wire, value::Kind as WireKind};
use serde_json::{Value, json};
use tonic::Code;

use crate::{coordinator, http};

const JSON: (&str, &str) = ("content-type", "application/json");
/// What arrives, and as what.
const EXACT: [(&str, &str); 9] = [
    ("0.1", "0.1"),
    ("19.99", "19.99"),
    ("1.10", "1.1"),
    ("-1E5", "-100000"),
    ("-0", "0"),
    ("2.50e-3", "0.0025"),
    ("9007199254740991", "9007199254740991"),
    ("123456789012345.5", "123456789012345.5"),
    ("1.7976931348623157e-300", "1.7976931348623157e-300"),
];
const INEXACT: [&str; 8] = [
    "123456789012345.123456",
    "9007199254740991.4",
    "9007199254740993",
    "18446744073709551616",
    "1e400",
    "1e-400",
    "0.1000000000000000055511151231257827021181583404541015625",
    "100000000000000000000000000000000000000000000000000",
];

/// The payloads that came with prepares.
fn payloads(participant: &FakeParticipant) -> Vec<Payload> {
    let prepares = participant.heard().into_iter().filter_map(|heard| match heard {
        Heard::Prepare(prepare) => prepare.payload,
        _ => None,
    });
    prepares.collect()
}

/// The text that came to one that speaks HTTP.
fn text_of(payload: &Payload) -> String {
    let Some(Kind::Typed(text)) = &payload.kind else { panic!("no text: {payload:?}") };
    String::from_utf8(text.to_vec()).unwrap()
}

fn number_of(payload: &Payload) -> f64 {
    let Some(Kind::Json(object)) = &payload.kind else { panic!("no json: {payload:?}") };
    let Some(WireKind::ListValue(list)) = &object.fields["a"].kind else { panic!("no list") };
    let Some(WireKind::NumberValue(number)) = list.values[0].kind else { panic!("no number") };
    number
}

async fn begin(rest: &Rest) -> String {
    let begun = rest.json("POST", "/transactions", &json!({"interactive": true})).await.unwrap();
    begun.text("id").to_owned()
}

fn doubles(participant: &str, number: f64) -> Branch {
    let value = |kind| Wire { kind: Some(kind) };
    let list = ListValue { values: vec![value(WireKind::NumberValue(number))] };
    let object = Struct { fields: [("a".into(), value(WireKind::ListValue(list)))].into() };
    let payload = Some(Payload { kind: Some(Kind::Json(object)) });
    Branch { participant: participant.into(), payload }
}

async fn client(coordinator: &Alone) -> TransactionServiceClient<tonic::transport::Channel> {
    let address = format!("http://{}", coordinator.process.address());
    TransactionServiceClient::connect(address).await.unwrap()
}

#[tokio::test]
async fn a_number_in_a_body_arrives_as_it_was_sent_at_every_participant() {
    let (_coordinator, rest) = coordinator().await;
    let mut all = Vec::new();
    for speaks in Speaks::ALL {
        all.push(FakeParticipant::start(speaks).await.unwrap());
    }
    for (sent, arrives) in EXACT {
        let branch = |uri: String| {
            format!("{{\"participant\": \"{uri}\", \"payload\": {{\"a\": [{sent}]}}}}")
        };
        let branches: Vec<_> = all.iter().map(|it| branch(it.uri())).collect();
        let body = format!("{{\"branches\": [{}]}}", branches.join(", "));
        let done = rest.send("POST", "/transactions?wait=30", &[JSON], body).await.unwrap();
        assert_eq!(done.text("state"), "committed", "{done:?}");
        for (speaks, participant) in Speaks::ALL.into_iter().zip(&all) {
            let payload = payloads(participant).pop().unwrap();
            match speaks {
                Speaks::Http => assert_eq!(text_of(&payload), format!("{{\"a\":[{arrives}]}}")),
                _ => assert_eq!(number_of(&payload), sent.parse::<f64>().unwrap(), "{sent}"),
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_would_not_arrive_as_it_was_sent_is_refused_with_its_path() {
    let (_coordinator, rest) = coordinator().await;
    let participant = http().await;
    let id = begin(&rest).await;
    let inexact = INEXACT.map(|it| (format!("{{\"a\": [{it}]}}"), ".a[0]", "send it as a string"));
    let more = [
        ("{\"a\": {\"b\": 1, \"c\": 2, \"b\": 1}}", ".a.b", "twice"),
        ("{\"a\": [0, \"\\ud800\"]}", ".a[1]", "Unicode"),
    ];
    let more = more.map(|(payload, path, says)| (payload.to_owned(), path, says));
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(5000), "]".repeat(5000));
    for (payload, path, says) in
        inexact.into_iter().chain(more).chain([(deep, ".a[0][0]", "24 levels")])
    {
        let uri = participant.uri();
        let branch = format!("{{\"participant\": \"{uri}\", \"payload\": {payload}}}");
        let whole = format!("{{\"branches\": [{branch}]}}");
        for (target, body, within) in [
            ("/transactions?wait=30".into(), whole, "branches[0].payload"),
            (format!("/transactions/{id}/branches"), branch, "payload"),
        ] {
            let refused = rest.send("POST", &target, &[JSON], body).await.unwrap();
            assert_eq!(refused.status, 400, "{refused:?}");
            assert!(refused.text("field").starts_with(&format!("{within}{path}")), "{refused:?}");
            assert!(refused.text("detail").contains(says), "{refused:?}");
        }
    }
    assert_eq!(participant.heard(), []);
}

#[tokio::test]
async fn a_struct_is_checked_where_its_participant_speaks_http() {
    let (coordinator, rest) = coordinator().await;
    let (participant, id) = (http().await, begin(&rest).await);
    let mut client = client(&coordinator).await;
    for number in [f64::NAN, f64::INFINITY, 9_007_199_254_740_993.0, -1e300] {
        let branch = doubles(&participant.uri(), number);
        let request = ExecuteRequest { branches: vec![branch.clone()], ..Default::default() };
        let refused = client.execute(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().contains("branches[0].payload.json.a[0]"), "{refused:?}");
        assert!(refused.message().contains("send it as a string"), "{refused:?}");
        let item = ExecuteStreamItem { tag: 1, request: Some(request) };
        let items = ExecuteStreamRequest { items: vec![item] };
        let answers = client.execute_stream(tokio_stream::once(items)).await.unwrap();
        let answer = answers.into_inner().message().await.unwrap().unwrap();
        let Some(execute_stream_result::Result::Error(error)) = &answer.results[0].result else {
            panic!("{answer:?}");
        };
        assert!(error.message.contains("branches[0].payload.json.a[0]"), "{error:?}");
        let enlist = EnlistRequest {
            transaction_id: id.clone(),
            branch: Some(branch),
            ..EnlistRequest::default()
        };
        let refused = client.enlist(enlist).await.unwrap_err();
        assert!(refused.message().contains("branch.payload.json.a[0]"), "{refused:?}");
    }
    assert_eq!(participant.heard(), []);
    for number in [0.1, 19.99, -5e-324, 9_007_199_254_740_991.0, 0.1 + 0.2] {
        let branches = vec![doubles(&participant.uri(), number)];
        let request = ExecuteRequest { branches, ..Default::default() };
        assert!(client.execute(request).await.unwrap().into_inner().committed);
        let text = text_of(&payloads(&participant).pop().unwrap());
        let sent: Value = json!({ "a": [json_of(number)] });
        assert_eq!(text, sent.to_string());
    }
}

fn json_of(number: f64) -> Value {
    if number.fract() == 0.0 { (number as i64).into() } else { number.into() }
}

#[tokio::test]
async fn a_double_arrives_as_it_was_sent_where_its_participant_speaks_grpc() {
    let (coordinator, _) = coordinator().await;
    let mut client = client(&coordinator).await;
    for speaks in [Speaks::Calls, Speaks::Link] {
        let participant = FakeParticipant::start(speaks).await.unwrap();
        for number in [0.1, f64::NAN, -0.0, 1e300, 9_007_199_254_740_994.0] {
            let branches = vec![doubles(&participant.uri(), number)];
            let request = ExecuteRequest { branches, ..Default::default() };
            assert!(client.execute(request).await.unwrap().into_inner().committed);
            let arrived = number_of(&payloads(&participant).pop().unwrap());
            assert_eq!(arrived.to_bits(), number.to_bits());
        }
    }
}

#[tokio::test]
async fn an_output_travels_back_to_the_letter() {
    let (_coordinator, rest) = coordinator().await;
    let participant = http().await;
    let other = http().await;
    for output in ["{\"a\": 123456789012345.123456, \"a\":  1e400}", "-0", "\"\\ud800\""] {
        participant.set_script(move |heard| match heard {
            Heard::Prepare(_) => {
                Reply::Promise(Some(Payload { kind: Some(Kind::Typed(output.to_owned().into())) }))
            }
            heard => agree(heard),
        });
        let body = json!([participant.uri(), other.uri()]);
        let done = rest.json("POST", "/transactions?wait=30", &body).await.unwrap();
        assert_eq!(done.text("state"), "committed", "{done:?}");
        let Some(Heard::Commit(commit)) = participant.heard().pop() else { panic!("no commit") };
        assert_eq!(text_of(&commit.output.unwrap()), output);
    }
}
