//! Between our plain data and etcd-client's types.

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, ResponseHeader, TxnOp, TxnOpResponse, TxnResponse};
use handover_proto::txn::{Cmp, LeaseId, Op, Txn};

use super::{Entry, Origin, TxnReply};

pub(super) fn txn_request(txn: &Txn) -> etcd_client::Txn {
    etcd_client::Txn::new()
        .when(txn.cmp.iter().map(compare).collect::<Vec<_>>())
        .and_then(txn.then.iter().map(operation).collect::<Vec<_>>())
        .or_else(txn.or_else.iter().map(operation).collect::<Vec<_>>())
}

fn compare(cmp: &Cmp) -> Compare {
    match cmp {
        Cmp::ModRevision(key, revision) => Compare::mod_revision(key.as_str(), CompareOp::Equal, *revision),
        Cmp::CreateRevision(key, revision) => Compare::create_revision(key.as_str(), CompareOp::Equal, *revision),
        Cmp::Lease(key, lease) => Compare::lease(key.as_str(), CompareOp::Equal, *lease),
        Cmp::Value(key, value) => Compare::value(key.as_str(), CompareOp::Equal, value.clone()),
    }
}

fn operation(op: &Op) -> TxnOp {
    match op {
        Op::Put { key, value, lease } => {
            TxnOp::put(key.as_str(), value.clone(), Some(PutOptions::new().with_lease(*lease)))
        }
        Op::Delete(key) => TxnOp::delete(key.as_str(), None),
        Op::Get(key) => TxnOp::get(key.as_str(), None),
    }
}

/// Whether the transaction could change anything, in whichever branch.
pub(super) fn mutates(txn: &Txn) -> bool {
    txn.then.iter().chain(&txn.or_else).any(|op| !matches!(op, Op::Get(_)))
}

/// The one lease that the transaction's puts name, if it is one.
pub(super) fn only_lease(txn: &Txn) -> Option<LeaseId> {
    let mut leases = txn.then.iter().chain(&txn.or_else).filter_map(|op| match op {
        Op::Put { lease, .. } if *lease != 0 => Some(*lease),
        _ => None,
    });
    let first = leases.next()?;
    leases.all(|lease| lease == first).then_some(first)
}

/// What an error message calls the transaction: by its first written (else read) key.
pub(super) fn name(txn: &Txn) -> String {
    let key = |op: &Op| match op {
        Op::Put { key, .. } | Op::Delete(key) | Op::Get(key) => key.clone(),
    };
    let mut ops = txn.then.iter().chain(&txn.or_else);
    match ops.clone().find(|op| !matches!(op, Op::Get(_))).or_else(|| ops.next()) {
        Some(op) if mutates(txn) => format!("a transaction that writes {}", key(op)),
        Some(op) => format!("a transaction that reads {}", key(op)),
        None => "an empty transaction".to_owned(),
    }
}

pub(super) fn txn_reply(reply: &TxnResponse) -> Option<TxnReply> {
    let header = reply.header()?;
    let reads = reply.op_responses().into_iter().filter_map(|op| match op {
        TxnOpResponse::Get(get) => Some(get.kvs().first().map(entry)),
        _ => None,
    });
    Some(TxnReply {
        succeeded: reply.succeeded(),
        revision: header.revision(),
        reads: reads.collect(),
        origin: origin(header),
    })
}

pub(super) fn origin(header: &ResponseHeader) -> Origin {
    Origin { cluster_id: header.cluster_id(), member_id: header.member_id(), raft_term: header.raft_term() }
}

pub(super) fn entry(kv: &KeyValue) -> Entry {
    Entry {
        key: String::from_utf8_lossy(kv.key()).into_owned(),
        value: kv.value().to_vec(),
        mod_revision: kv.mod_revision(),
        create_revision: kv.create_revision(),
        lease: kv.lease(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_in_either_branch_makes_a_transaction_a_mutation() {
        let read = Txn { then: vec![Op::Get("a".into())], ..Txn::default() };
        assert!(!mutates(&read));
        assert!(mutates(&Txn { or_else: vec![Op::Delete("a".into())], ..read.clone() }));
        assert!(mutates(&Txn { then: vec![Op::put("a", "1")], ..read }));
    }

    #[test]
    fn a_transaction_is_named_by_the_key_that_it_writes() {
        let txn = Txn { then: vec![Op::Get("a".into()), Op::put("b", "1")], ..Txn::default() };
        assert_eq!(name(&txn), "a transaction that writes b");
        assert_eq!(name(&Txn { then: vec![Op::Get("a".into())], ..Txn::default() }), "a transaction that reads a");
        assert_eq!(name(&Txn::default()), "an empty transaction");
    }

    #[test]
    fn a_lease_is_named_only_if_the_puts_agree_on_one() {
        let put = |lease| Op::put_with_lease("k", "v", lease);
        let txn = |then| Txn { then, ..Txn::default() };
        assert_eq!(only_lease(&txn(vec![put(0), put(7), put(7)])), Some(7));
        assert_eq!(only_lease(&txn(vec![put(7), put(8)])), None);
    }
}
