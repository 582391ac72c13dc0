//! The network: one bridge in our own namespace, each host in a namespace of its own behind it. Packets between two hosts
//! are dropped on the bridge, one way or both, so that neither end notices anything but silence.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

/// The network's address; the last number is the host's.
const NET: [u8; 3] = [10, 77, 0];
/// Our own last number: load, probes and observer.
const OURS: u8 = 254;

/// nft 1.0.6 wants a new line before a closing brace.
const CUTS: &str = "table bridge cuts {
 set pairs { type ifname . ifname; }
 chain forward { type filter hook forward priority 0;
  iifname . oifname @pairs drop
 }
}";

/// A host's place in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// Its name, which is its namespace's too.
    pub name: String,
    /// Its address.
    pub ip: Ipv4Addr,
}

/// The bridge and what hangs on it.
#[derive(Debug, Default)]
pub struct Net {
    /// How many cuts each dropped pair is part of: two faults may overlap, and the first to end must not end the other.
    cuts: Mutex<BTreeMap<(String, String), u32>>,
}

fn run(program: &str, args: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.args(args.split(' ')).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} {args}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

impl Net {
    /// Makes the bridge in the namespace that we are in.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new() -> Result<Self> {
        let [a, b, c] = NET;
        run("ip", "link add br0 type bridge")?;
        run("ip", "link set br0 up")?;
        run("ip", &format!("addr add {a}.{b}.{c}.{OURS}/24 dev br0"))?;
        let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("cannot run nft")?;
        std::io::Write::write_all(&mut nft.stdin.take().context("nft's input")?, CUTS.as_bytes())?;
        if !nft.wait()?.success() {
            bail!("nft refused the table of cuts");
        }
        Ok(Self::default())
    }

    /// Adds a host.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn host(&self, name: &str, number: u8) -> Result<Spot> {
        let [a, b, c] = NET;
        let ip = Ipv4Addr::new(a, b, c, number);
        run("ip", &format!("netns add {name}"))?;
        run("ip", &format!("link add {} type veth peer name eth0 netns {name}", port(name)))?;
        run("ip", &format!("link set {} master br0 up", port(name)))?;
        run("ip", &format!("-n {name} addr add {ip}/24 dev eth0"))?;
        run("ip", &format!("-n {name} link set eth0 up"))?;
        run("ip", &format!("-n {name} link set lo up"))?;
        Ok(Spot { name: name.to_owned(), ip })
    }

    /// Drops what goes from the first to the second of each pair.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn cut(&self, pairs: &[(String, String)]) -> Result<()> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = Vec::new();
        for pair in pairs {
            let held = cuts.entry(pair.clone()).or_default();
            *held += 1;
            fresh.extend((*held == 1).then_some(pair));
        }
        change("add", &fresh)
    }

    /// Lets it through again.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn heal(&self, pairs: &[(String, String)]) -> Result<()> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut over = Vec::new();
        for pair in pairs {
            let Some(held) = cuts.get_mut(pair) else { continue };
            *held -= 1;
            if *held == 0 {
                cuts.remove(pair);
                over.push(pair);
            }
        }
        change("delete", &over)
    }
}

fn change(verb: &str, pairs: &[&(String, String)]) -> Result<()> {
    if pairs.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = pairs.iter().map(|(from, to)| format!("\"{}\" . \"{}\"", port(from), port(to))).collect();
    run("nft", &format!("{verb} element bridge cuts pairs {{ {} }}", names.join(", ")))
}

/// The host's end on the bridge.
fn port(host: &str) -> String {
    format!("p-{host}")
}
