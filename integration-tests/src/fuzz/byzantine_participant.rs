//! A participant that answers what nobody asked, in almost the right words.

use anyhow::ensure;
use bytes::Bytes;
use dtc_proto::dtc::{Branch, ExecuteRequest, LinkInquiry, LinkResponse};
use prost::Message;
use prost_reflect::MessageDescriptor;
use rand::RngExt;
use uuid::Uuid;

use super::message::Maker;
use crate::{FakeParticipant, Heard, Reply, Shop, Speaks, agree, eventually, typed};

/// Transactions that it has a branch of, at a time.
const TRANSACTIONS: usize = 4;

pub(super) struct ByzantineParticipant {
    fake: FakeParticipant,
    answer: MessageDescriptor,
}

impl ByzantineParticipant {
    pub(super) async fn start(answer: MessageDescriptor) -> anyhow::Result<Self> {
        Ok(Self { fake: FakeParticipant::start(Speaks::Link).await?, answer })
    }

    /// Gets some branches to promise and says nothing yet; returns their transactions.
    pub(super) async fn enlist(&self, shop: &Shop) -> anyhow::Result<Vec<Bytes>> {
        self.fake.set_script(|_| Reply::Silence);
        let before = self.prepared().len();
        for _ in 0..TRANSACTIONS {
            let branch = Branch {
                participant: self.fake.uri(),
                payload: Some(typed(&ExecuteRequest::default())),
            };
            let request = ExecuteRequest {
                branches: vec![branch.clone(), branch],
                wait: Some(prost_types::Duration::default()),
                ..ExecuteRequest::default()
            };
            shop.execute(request).await?;
        }
        eventually("the byzantine participant is asked to prepare", async || {
            let new = self.prepared().split_off(before);
            ensure!(new.len() >= TRANSACTIONS, "{} branches", new.len());
            Ok(new)
        })
        .await
    }

    /// Says so many things, then the truth.
    pub(super) async fn lie(&self, maker: &mut Maker<'_>, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            let Ok(answer) = LinkResponse::decode(maker.encoded(&self.answer)) else { continue };
            let answer = thinned(answer, maker);
            let heard = self.reactions();
            eventually("the coordinator links again", async || {
                ensure!(self.fake.say(answer.clone()).await, "there is no link");
                Ok(())
            })
            .await?;
            // A question behind it is answered, or it was the end of the link.
            self.fake.ask(question(&maker.words.promised[0])).await;
            eventually("the coordinator has read it", async || {
                ensure!(self.reactions() > heard, "no answer and no new link");
                Ok(())
            })
            .await?;
        }
        self.fake.set_script(agree);
        Ok(())
    }

    /// How often the coordinator has answered a question or begun a link.
    fn reactions(&self) -> usize {
        let heard = self.fake.heard();
        let is_one = |heard: &&Heard| matches!(heard, Heard::Hello(_) | Heard::Outcome(_));
        heard.iter().filter(is_one).count()
    }

    fn prepared(&self) -> Vec<Bytes> {
        let id = |heard| match heard {
            Heard::Prepare(request) => Uuid::try_parse(&request.transaction_id).ok(),
            _ => None,
        };
        let ids = self.fake.heard().into_iter().filter_map(id);
        ids.map(|id| Bytes::copy_from_slice(id.as_bytes())).collect()
    }
}

/// About a branch of a run that nobody knows.
fn question(transaction: &Bytes) -> LinkInquiry {
    LinkInquiry {
        transaction_id: transaction.clone(),
        incarnation: Bytes::copy_from_slice(Uuid::nil().as_bytes()),
        ..LinkInquiry::default()
    }
}

/// The first thing that is wrong ends the link: mostly there is just one.
fn thinned(answer: LinkResponse, maker: &mut Maker<'_>) -> LinkResponse {
    let nothing = LinkResponse::default();
    match maker.dice.random_range(0..7) {
        0 => answer,
        1 => LinkResponse { hello: answer.hello, ..nothing },
        2 => LinkResponse { inquiries: answer.inquiries, ..nothing },
        3 | 4 => LinkResponse { votes: answer.votes.into_iter().take(1).collect(), ..nothing },
        _ => LinkResponse {
            acknowledgements: answer.acknowledgements.into_iter().take(1).collect(),
            ..nothing
        },
    }
}
