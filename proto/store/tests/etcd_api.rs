//! The parts of etcd's API that `Store` does not use itself, but that etcdctl and operators do: the embedded store must
//! do the same as etcd.

#![allow(clippy::expect_used, clippy::panic, reason = "these are tests, also where clippy cannot see it")]

#[macro_use]
mod site;

use anyhow::{Context, Result};
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, EventType, GetOptions, LeaseGrantOptions, LeaseTimeToLiveOptions,
    PutOptions, SortOrder, SortTarget, Txn, TxnOp, WatchFilterType, WatchOptions, WatchResponse, WatchStream,
};
use site::{PATIENCE, Site};

#[tokio::test]
async fn this_binary_becomes_a_store_when_the_environment_says_so() -> Result<()> {
    site::become_a_store().await
}

contract! {
    puts_and_deletes_show_what_was_there_before
    a_range_is_limited_sorted_counted_and_without_values
    versions_count_writes_and_compares_take_ranges_and_orders
    a_lease_may_have_an_id_of_ones_own_and_tells_its_keys
    one_stream_carries_several_watches_and_their_ends
    a_watch_shows_the_previous_value_and_filters
    progress_comes_after_the_events_before_it
    a_watch_far_behind_is_told_everything
    a_watch_from_a_future_revision_waits_for_it
    revisions_out_of_reach_are_refused
    the_member_list_has_the_member_that_leads
}

async fn client(site: &Site) -> Result<Client> {
    Ok(Client::connect([site.endpoint()], None).await?)
}

async fn told(stream: &mut WatchStream) -> Result<WatchResponse> {
    let response = tokio::time::timeout(PATIENCE, stream.message()).await.context("nothing is told")??;
    response.context("the stream ended")
}

async fn puts_and_deletes_show_what_was_there_before(site: Site) -> Result<()> {
    let mut client = client(&site).await?;
    client.put("a", "1", None).await?;
    let put = client.put("a", "2", Some(PutOptions::new().with_prev_key())).await?;
    assert_eq!(put.prev_key().context("a previous value")?.value(), b"1");
    let kept = client.put("a", "", Some(PutOptions::new().with_ignore_value())).await?;
    assert!(kept.prev_key().is_none());
    let deleted = client.delete("a", Some(DeleteOptions::new().with_prev_key().with_prefix())).await?;
    assert_eq!((deleted.deleted(), deleted.prev_kvs()[0].value()), (1, b"2".as_slice()));
    client.put("a", "", Some(PutOptions::new().with_ignore_value())).await.expect_err("there is no value to keep");
    Ok(())
}

async fn a_range_is_limited_sorted_counted_and_without_values(site: Site) -> Result<()> {
    let mut client = client(&site).await?;
    for (key, value) in [("a", "2"), ("b", "3"), ("c", "1"), ("d", "0")] {
        client.put(key, value, None).await?;
    }
    let by_value = GetOptions::new().with_range("d").with_sort(SortTarget::Value, SortOrder::Descend).with_limit(2);
    let reply = client.get("a", Some(by_value)).await?;
    assert_eq!(reply.kvs().iter().map(|kv| kv.key()).collect::<Vec<_>>(), [b"b", b"a"]);
    assert!(reply.more() && reply.count() == 3);
    let keys = client.get("b", Some(GetOptions::new().with_from_key().with_keys_only())).await?;
    assert!(keys.kvs().len() == 3 && keys.kvs().iter().all(|kv| kv.value().is_empty()));
    let count = client.get("", Some(GetOptions::new().with_all_keys().with_count_only())).await?;
    assert_eq!((count.count(), count.kvs().len()), (4, 0));
    Ok(())
}

async fn versions_count_writes_and_compares_take_ranges_and_orders(site: Site) -> Result<()> {
    let mut client = client(&site).await?;
    for key in ["/p/a", "/p/a", "/p/b"] {
        client.put(key, "v", None).await?;
    }
    assert_eq!(client.get("/p/a", None).await?.kvs()[0].version(), 2);
    let cases = [
        (Compare::version("/p/", CompareOp::Greater, 0).with_prefix(), true),
        (Compare::version("/p/", CompareOp::Greater, 1).with_prefix(), false),
        (Compare::version("/p/a", CompareOp::NotEqual, 1), true),
        (Compare::value("/p/a", CompareOp::Less, "w"), true),
        (Compare::create_revision("/none/", CompareOp::Equal, 0).with_prefix(), true),
    ];
    for (compare, holds) in cases {
        let txn = Txn::new().when([compare.clone()]).and_then([TxnOp::get("/p/a", None)]);
        assert_eq!(client.txn(txn).await?.succeeded(), holds, "{compare:?}");
    }
    Ok(())
}

async fn a_lease_may_have_an_id_of_ones_own_and_tells_its_keys(site: Site) -> Result<()> {
    let mut client = client(&site).await?;
    let own = || Some(LeaseGrantOptions::new().with_id(4711));
    assert_eq!(client.lease_grant(60, own()).await?.id(), 4711);
    client.lease_grant(60, own()).await.expect_err("it exists");
    client.put("a", "1", Some(PutOptions::new().with_lease(4711))).await?;
    let info = client.lease_time_to_live(4711, Some(LeaseTimeToLiveOptions::new().with_keys())).await?;
    assert_eq!((info.granted_ttl(), info.keys()), (60, [b"a".to_vec()].as_slice()));
    assert!((55..=60).contains(&info.ttl()), "{}", info.ttl());
    assert_eq!(client.leases().await?.leases().len(), 1);
    assert_eq!(client.lease_time_to_live(1, None).await?.ttl(), -1, "no such lease");
    Ok(())
}

async fn one_stream_carries_several_watches_and_their_ends(site: Site) -> Result<()> {
    let mut client = client(&site).await?;
    let mut stream = client.watch("a", Some(WatchOptions::new().with_watch_id(5))).await?;
    let created = told(&mut stream).await?;
    assert!(created.created() && created.watch_id() == 5);
    stream.watch("b", Some(WatchOptions::new().with_watch_id(6))).await?;
    assert!(told(&mut stream).await?.created());
    client.put("b", "1", None).await?;
    let event = told(&mut stream).await?;
    assert_eq!((event.watch_id(), event.events().len()), (6, 1));
    stream.cancel(6).await?;
    let canceled = told(&mut stream).await?;
    assert!(canceled.canceled() && canceled.watch_id() == 6);
    client.put("b", "2", None).await?;
    client.put("a", "1", None).await?;
    assert_eq!(told(&mut stream).await?.watch_id(), 5, "the other goes on");
    Ok(())
}

async fn a_watch_shows_the_previous_value_and_filters(site: Site) -> Result<()> {
    let mut client = client(&site).await?;
    let first = client.put("a", "1", None).await?.header().context("a header")?.revision();
    let deletions = WatchOptions::new().with_prev_key().with_filters([WatchFilterType::NoPut]);
    let mut stream = client.watch("a", Some(deletions.with_start_revision(first))).await?;
    assert!(told(&mut stream).await?.created());
    client.put("a", "2", None).await?;
    client.delete("a", None).await?;
    let response = told(&mut stream).await?;
    let [event] = response.events() else { panic!("one event, not {:?}", response.events()) };
    assert_eq!(event.event_type(), EventType::Delete);
    assert_eq!(event.prev_kv().context("a previous value")?.value(), b"2");
    Ok(())
}

async fn progress_comes_after_the_events_before_it(site: Site) -> Result<()> {
    let mut client = client(&site).await?;
    let mut stream = client.watch("a", None).await?;
    assert!(told(&mut stream).await?.created());
    let revision = client.put("a", "1", None).await?.header().context("a header")?.revision();
    assert_eq!(told(&mut stream).await?.events().len(), 1);
    let elsewhere = client.put("b", "1", None).await?.header().context("a header")?.revision();
    stream.request_progress().await?;
    let progress = told(&mut stream).await?;
    assert!(progress.watch_id() == -1 && progress.events().is_empty());
    let seen = progress.header().context("a header")?.revision();
    assert!((revision..=elsewhere).contains(&seen), "{seen}");
    Ok(())
}

async fn a_watch_far_behind_is_told_everything(site: Site) -> Result<()> {
    const COUNT: usize = 60;
    let mut client = client(&site).await?;
    let large = vec![b'x'; 100_000];
    let mut first = None;
    for _ in 0..COUNT {
        let put = client.put("a", large.clone(), None).await?;
        first.get_or_insert(put.header().context("a header")?.revision());
    }
    let from = WatchOptions::new().with_start_revision(first.context("the first")?);
    // etcd tells all of it at once.
    let mut stream = client.watch_client().max_decoding_message_size(64 << 20).watch("a", Some(from)).await?;
    let mut seen = Vec::new();
    while seen.len() < COUNT {
        seen.extend(
            told(&mut stream).await?.events().iter().filter_map(|event| event.kv()).map(|kv| kv.mod_revision()),
        );
    }
    assert!(seen.is_sorted() && seen.len() == COUNT, "{seen:?}");
    Ok(())
}

async fn a_watch_from_a_future_revision_waits_for_it(site: Site) -> Result<()> {
    let mut client = client(&site).await?;
    let now = client.put("a", "0", None).await?.header().context("a header")?.revision();
    let mut stream = client.watch("a", Some(WatchOptions::new().with_start_revision(now + 3))).await?;
    assert!(told(&mut stream).await?.created());
    for value in ["1", "2", "3"] {
        client.put("a", value, None).await?;
    }
    let response = told(&mut stream).await?;
    let values: Vec<_> = response.events().iter().filter_map(|event| event.kv()).map(|kv| kv.value()).collect();
    assert_eq!(values, [b"3"]);
    Ok(())
}

async fn revisions_out_of_reach_are_refused(site: Site) -> Result<()> {
    let mut client = client(&site).await?;
    let now = client.put("a", "1", None).await?.header().context("a header")?.revision();
    client.get("a", Some(GetOptions::new().with_revision(now + 1))).await.expect_err("the future");
    client.compact(now + 1, None).await.expect_err("the future");
    client.compact(now, None).await?;
    client.compact(now, None).await.expect_err("done already");
    Ok(())
}

async fn the_member_list_has_the_member_that_leads(site: Site) -> Result<()> {
    let mut client = client(&site).await?;
    let leader = client.status().await?.leader();
    let members = client.member_list().await?;
    assert_eq!(members.members().iter().map(|member| member.id()).collect::<Vec<_>>(), [leader]);
    Ok(())
}
