//! The whole program in the test's own runtime.

use dtc_proto::dtc::{
    ListUndecidedRequest, participant_admin_service_client::ParticipantAdminServiceClient,
    participant_service_client::ParticipantServiceClient,
};
use dtc_runtime::Exit;
use dtc_store::OpenError;
use shop_proto::payment_service_server::SERVICE_NAME;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};

use super::*;
use crate::{Handle, Program};

const DAY: Duration = Duration::from_secs(86_400);
const NOON: Duration = Duration::from_secs(1_800_000_000);

fn program() -> Program<Till> {
    Program {
        name: "participant-till",
        about: "A till",
        listen: "127.0.0.1:0",
        service: SERVICE_NAME,
        resource: Till::default(),
        own: |_: Handle| tonic::service::Routes::default(),
    }
}

struct Running {
    port: String,
    environment: Environment,
    run: JoinHandle<Result<(), dtc_service::Fatal>>,
}

impl Running {
    /// With a wall clock that goes on from `wall`.
    async fn start(folder: &Path, wall: Duration, flags: &[&str]) -> Self {
        let began = Instant::now();
        let environment = Environment {
            wall_clock: Arc::new(move || wall + began.elapsed()),
            ..Environment::real()
        };
        let port_file = folder.join("port");
        let _ = std::fs::remove_file(&port_file);
        let paths = [
            format!("--data={}", folder.display()),
            format!("--port-file={}", port_file.display()),
        ];
        let flags = ["till", "--listen=127.0.0.1:0"].iter().chain(flags).map(ToString::to_string);
        let flags: Vec<String> = flags.chain(paths).collect();
        let run = tokio::spawn(program().run_in(environment.clone(), flags));
        let deadline = Instant::now() + Duration::from_secs(20);
        let port = loop {
            match std::fs::read_to_string(&port_file) {
                Ok(port) if port.ends_with('\n') => break port.trim().to_owned(),
                _ => assert!(Instant::now() < deadline && !run.is_finished(), "it does not serve"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        Self { port, environment, run }
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn prepare(&self, number: u8) -> PrepareResponse {
        let mut client = ParticipantServiceClient::connect(self.address()).await.unwrap();
        client.prepare(prepare(number, 5)).await.unwrap().into_inner()
    }

    async fn metrics(&self) -> String {
        let address = format!("127.0.0.1:{}", self.port);
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: till\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    async fn stop(self) {
        self.environment.shutdown.begin();
        let stopped = tokio::time::timeout(Duration::from_secs(20), self.run).await;
        stopped.expect("it stops").unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_program_serves_its_domain_and_its_operator_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let till = Running::start(folder.path(), NOON, &[]).await;
    assert_eq!(till.prepare(1).await.vote(), Vote::Commit);
    let mut admin = ParticipantAdminServiceClient::connect(till.address()).await.unwrap();
    let undecided = admin.list_undecided(ListUndecidedRequest::default()).await.unwrap();
    let branches = undecided.into_inner().branches;
    assert_eq!(branches[0].prepared_at.as_ref().unwrap().seconds / 100, 18_000_000);
    let metrics = till.metrics().await;
    assert!(metrics.contains("dtc_participant_prepares_total{vote=\"commit\"} 1"), "{metrics}");
    drop(admin);
    till.stop().await;

    let file = folder.path().join("till.db");
    let other = Store::open(&file, Options { role: "other", ..Options::default() });
    let Err(OpenError::WrongRole { found, .. }) = other else { panic!("{other:?}") };
    assert_eq!(found, "till");
    let till = Running::start(folder.path(), NOON - DAY, &[]).await;
    let metrics = till.metrics().await;
    assert!(metrics.contains("dtc_participant_undecided 1"), "{metrics}");
    assert!(metrics.contains("dtc_wall_clock_jumps_total 1"), "{metrics}");
    till.stop().await;
}

#[tokio::test]
async fn flags_say_how_much_of_the_disk_is_left_free() {
    let folder = tempfile::tempdir().unwrap();
    let all = format!("--min-free={}", u64::MAX);
    let till = Running::start(folder.path(), NOON, &[&all]).await;
    assert_eq!(code(&till.prepare(1).await), "DISK_FULL");
    till.stop().await;
}

#[tokio::test]
async fn a_flag_that_is_wrong_is_named() {
    let flags = ["till", "--retention=long"];
    let fatal = program().run_in(Environment::real(), flags).await.unwrap_err();
    assert_eq!(fatal.exit, Exit::Configuration as u8);
    assert!(fatal.reason.contains("--retention"), "{}", fatal.reason);
}
