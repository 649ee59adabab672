//! Branches in doubt.

use super::*;

#[tokio::test]
async fn a_branch_in_doubt_is_reported_on_a_new_link_and_does_what_it_is_told() {
    let (mut cluster, shop) = shop().await;
    for role in PARTICIPANTS {
        let process = cluster.process(role);
        let coordinator = to(process);
        for number in 1..=3 {
            coordinator.prepare(id(number), 0, work(role, number)).await.unwrap();
        }
        process.restart().await.unwrap();
        assert_eq!(effect(&shop, role).await, (15, 0), "{role:?}: a promise outlives a kill");
        // Another run of the same coordinator is asked, and told whose branches they are.
        let next = coordinator.run(EPOCH + 1, Uuid::from_u128(11));
        // Each new link is asked at once: later questions come ever more rarely.
        let many_links = async {
            let mut last = None;
            for _ in 0..8 {
                let mut link = next.link().await.unwrap();
                let mut asked = Vec::new();
                while asked.len() < 3 {
                    asked.extend(link.next().await.unwrap().inquiries);
                }
                last = Some((link, asked));
            }
            last.unwrap()
        };
        let (mut link, mut asked) = tokio::time::timeout(DEADLINE, many_links).await.unwrap();
        asked.truncate(3);
        asked.sort_by_key(|inquiry| inquiry.transaction_id.clone());
        for (number, inquiry) in (1..).zip(&asked) {
            assert_eq!(inquiry.transaction_id, bytes(id(number)));
            assert_eq!((inquiry.epoch, &inquiry.incarnation), (EPOCH, &bytes(RUN)));
        }
        let outcome = |number, outcome: BranchOutcome| LinkOutcome {
            transaction_id: bytes(id(number)),
            outcome: outcome.into(),
            decision_number: 1,
            ..LinkOutcome::default()
        };
        let outcomes = vec![
            outcome(1, BranchOutcome::Committed),
            outcome(2, BranchOutcome::Aborted),
            outcome(3, BranchOutcome::NotMine),
            // Of an unknown branch: no effect, and no tombstone.
            outcome(4, BranchOutcome::Aborted),
        ];
        link.send(LinkRequest { outcomes, ..LinkRequest::default() }).await.unwrap();
        eventually("two are settled, and one is still in doubt", async || {
            let now = effect(&shop, role).await;
            ensure!(now == (5, 5), "{now:?}");
            Ok(())
        })
        .await
        .unwrap();
        // It is asked about again, and 'pending' decides nothing either.
        while next_of(&mut link, |it| it.inquiries).await.transaction_id != bytes(id(3)) {}
        let outcomes = vec![outcome(3, BranchOutcome::Pending)];
        link.send(LinkRequest { outcomes, ..LinkRequest::default() }).await.unwrap();
        let unknown = next.prepare(id(4), 0, work(role, 4)).await.unwrap();
        assert_eq!(unknown.vote(), Vote::Commit);
        assert_eq!(effect(&shop, role).await, (10, 5), "{role:?}: still in doubt");
        next.commit(id(3), 0).await.unwrap();
        next.rollback(id(4), 0).await.unwrap();
        assert_eq!(effect(&shop, role).await, (0, 10), "{role:?}");
    }
}

/// Answers questions of participants that have no link to it.
struct Recovery {
    origin: Origin,
    answers: BTreeMap<String, BranchOutcome>,
    asked: tokio::sync::mpsc::UnboundedSender<GetOutcomeRequest>,
}

#[tonic::async_trait]
impl RecoveryService for Recovery {
    async fn get_outcome(
        &self,
        request: Request<GetOutcomeRequest>,
    ) -> Result<Response<GetOutcomeResponse>, Status> {
        let request = request.into_inner();
        let outcome = self.answers.get(&request.transaction_id);
        let outcome = outcome.copied().unwrap_or(BranchOutcome::NotMine).into();
        let _ = self.asked.send(request);
        let origin = Some(self.origin.clone());
        Ok(Response::new(GetOutcomeResponse {
            outcome,
            decision_number: 1,
            origin,
            ..GetOutcomeResponse::default()
        }))
    }
}

#[tokio::test]
async fn without_a_link_a_branch_in_doubt_asks_where_its_coordinator_said() {
    let (mut cluster, shop) = shop().await;
    for role in PARTICIPANTS {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut coordinator = to(cluster.process(role));
        coordinator.origin.recovery_address = format!("http://{}", listener.local_addr().unwrap());
        let (asked, mut questions) = tokio::sync::mpsc::unbounded_channel();
        let outcomes = [BranchOutcome::Committed, BranchOutcome::Aborted, BranchOutcome::NotMine];
        let answers = (1..).zip(outcomes).map(|(number, it)| (id(number).to_string(), it));
        let recovery =
            Recovery { origin: coordinator.origin.clone(), answers: answers.collect(), asked };
        let server = tonic::transport::Server::builder()
            .add_service(RecoveryServiceServer::new(recovery))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let serving = tokio::spawn(server);
        for number in 1..=3 {
            coordinator.prepare(id(number), 0, work(role, number)).await.unwrap();
        }
        eventually("two are settled, and one is still in doubt", async || {
            let now = effect(&shop, role).await;
            ensure!(now == (5, 5), "{now:?}");
            Ok(())
        })
        .await
        .unwrap();
        let question = questions.recv().await.unwrap();
        assert_eq!(question.coordinator_id, IDENTITY.to_string());
        assert_eq!((question.epoch, question.incarnation), (EPOCH, RUN.to_string()));
        coordinator.commit(id(3), 0).await.unwrap();
        serving.abort();
    }
}
