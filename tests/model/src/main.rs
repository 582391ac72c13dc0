//! Explores one configuration.
use handover_model::{configs, mistake::Mistake, rules::Rules};
use stateright::{Checker, Model};
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let rules = if args[1] == "--mistake" {
        let m: Mistake = args[2].parse().unwrap();
        Rules::mistaken(m)
    } else {
        Rules::correct(configs::ALL.iter().find(|c| c.name == args[2]).unwrap())
    };
    let start = std::time::Instant::now();
    let c = rules.checker().threads(2).spawn_bfs().join();
    println!("{} unique {} states {} depth {} in {:?}", args[2], c.unique_state_count(), c.state_count(), c.max_depth(), start.elapsed());
    for p in rules_props(&args) { if !c.discoveries().contains_key(p) { println!("not found {p}"); } }
    for (n, p) in c.discoveries() { println!("found {n}"); if args.len() > 3 {for a in p.into_actions() { println!("   {a:?}"); } }}
}
fn rules_props(args: &[String]) -> Vec<&'static str> {
    if args[1] == "--mistake" { return vec![args[2].parse::<Mistake>().unwrap().breaks().name()]; }
    configs::ALL.iter().find(|c| c.name == args[2]).unwrap().reached.iter().map(|r| r.name()).collect()
}
