//! etcd's limits on a request, so that nothing works here that a cluster would refuse.

use super::{Op, Refusal, Request, Transaction};

/// etcd's `--max-txn-ops`.
const MOST_OPS: usize = 128;
/// etcd's `--max-request-bytes`.
const MOST_BYTES: usize = 1_536 << 10;

/// Refuses what etcd would refuse before it looks at the state. `size` is that of the encoded request.
pub(crate) fn check(request: &Request, size: usize) -> Result<(), Refusal> {
    let Request::Txn(txn) = request else { return Ok(()) };
    check_txn(txn)?;
    let writes = txn.then.iter().chain(&txn.or_else).any(|op| !matches!(op, Op::Get(_)));
    // Reads do not go through etcd's log, where this limit stands.
    if writes && size > MOST_BYTES { Err(Refusal::TooLarge) } else { Ok(()) }
}

fn check_txn(txn: &Transaction) -> Result<(), Refusal> {
    if txn.compares.len().max(txn.then.len()).max(txn.or_else.len()) > MOST_OPS {
        return Err(Refusal::TooManyOps);
    }
    if txn.compares.iter().any(|compare| compare.range.start.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    check_branch(&txn.then)?;
    check_branch(&txn.or_else)
}

fn check_branch(ops: &[Op]) -> Result<(), Refusal> {
    let mut puts = Vec::new();
    for op in ops {
        match op {
            Op::Get(query) if query.range.start.is_empty() => return Err(Refusal::EmptyKey),
            Op::Delete(delete) if delete.range.start.is_empty() => return Err(Refusal::EmptyKey),
            Op::Put(put) if put.key.is_empty() => return Err(Refusal::EmptyKey),
            Op::Put(put) => puts.push(&put.key),
            Op::Get(_) | Op::Delete(_) => {}
        }
    }
    puts.sort_unstable();
    let twice = puts.windows(2).any(|pair| pair[0] == pair[1]);
    let deleted = |op: &Op| match op {
        Op::Delete(delete) => puts.iter().any(|key| delete.range.contains(key)),
        Op::Get(_) | Op::Put(_) => false,
    };
    if twice || ops.iter().any(deleted) { Err(Refusal::DuplicateKey) } else { Ok(()) }
}
