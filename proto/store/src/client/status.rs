//! What each member says of itself.

use super::Store;
use super::error::{Failure, StoreError};
use super::member::{CALL_TIMEOUT, Link};
use super::store::{Repeat, no_header};

/// One member's own account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its version, such as `3.5.16`; the embedded store says `handover-` and Handover's own version.
    pub version: String,
    /// The cluster that it belongs to.
    pub cluster_id: u64,
    /// Its own id.
    pub member_id: u64,
    /// The id of the member that it follows; its own id if it leads.
    pub leader: u64,
    /// The raft term that it is in.
    pub raft_term: u64,
    /// The size of its database on disk.
    pub db_size_bytes: i64,
    /// Its alarms and troubles, such as that no space is left; in its own words.
    pub alarms: Vec<String>,
}

impl MemberStatus {
    /// Whether this is the embedded store rather than an etcd.
    pub fn is_embedded(&self) -> bool {
        self.version.starts_with(crate::server::VERSION_PREFIX)
    }
}

impl Store {
    /// Asks every member at the same time; one entry for each endpoint, in the order configured.
    pub async fn status(&self) -> Vec<(String, Result<MemberStatus, StoreError>)> {
        let mut answers = tokio::task::JoinSet::new();
        for index in 0..self.members() {
            let store = self.clone();
            answers.spawn(async move { (index, store.status_of(index).await) });
        }
        let mut all = answers.join_all().await;
        all.sort_by_key(|(index, _)| *index);
        all.into_iter().map(|(index, answer)| (self.member(index).endpoint().to_owned(), answer)).collect()
    }

    /// The ids of the cluster's members: more than endpoints are configured, perhaps.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] if no member answers in two rounds, [`StoreError::Refused`].
    pub async fn member_ids(&self) -> Result<Vec<u64>, StoreError> {
        let call = |mut link: Link| async move {
            let reply = link.client.member_list().await.map_err(Failure::of)?;
            Ok(reply.members().iter().map(etcd_client::Member::id).collect())
        };
        self.ask("listing the members", Repeat::Read, call).await
    }

    async fn status_of(&self, index: usize) -> Result<MemberStatus, StoreError> {
        let member = self.member(index);
        let answer = member.within(CALL_TIMEOUT, ask).await;
        answer.map_err(|failure| failure.of_reading().at("asking for the member's status", member.endpoint(), None))
    }
}

async fn ask(mut link: Link) -> Result<MemberStatus, Failure> {
    let reply = link.client.status().await.map_err(Failure::of)?;
    let header = reply.header().ok_or_else(no_header)?;
    Ok(MemberStatus {
        version: reply.version().to_owned(),
        cluster_id: header.cluster_id(),
        member_id: header.member_id(),
        leader: reply.leader(),
        raft_term: reply.raft_term(),
        db_size_bytes: reply.db_size(),
        alarms: reply.errors().to_vec(),
    })
}
