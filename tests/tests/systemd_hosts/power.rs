//! The hosts themselves.

use std::net::TcpStream;

use handover_tests::booted::Booted;

use crate::site::until;

#[test]
fn hosts_boot_reach_each_other_lose_their_power_and_boot_again() {
    let Some(mut site) = Booted::or_skip(2) else { return };
    let address = (site.host(1).address(), 8099);
    site.host(1).put("/etc/kept", "kept").expect("written");
    let serve = ["systemd-run", "--unit=web", "python3", "-m", "http.server", "8099", "--directory", "/etc"];
    site.host(1).must(&serve).expect("started");
    until("the second host to listen", || TcpStream::connect(address).is_ok());
    let url = format!("http://{}:8099/kept", site.host(1).address());
    assert_eq!(site.host(0).must(&["curl", "-fsS", &url]).expect("fetched"), "kept", "from host to host");

    site.cut_power(1).expect("cut");
    until("the second host to be gone", || TcpStream::connect(address).is_err());
    assert!(site.host(0).runs() && !site.host(1).runs());
    site.boot(1).expect("booted again");
    assert_eq!(site.host(1).must(&["cat", "/etc/kept"]).expect("its disk"), "kept");
    assert_ne!(site.host(1).run(&["systemctl", "is-active", "web"]).expect("run").code, 0, "its processes are gone");
    assert_eq!(site.host(1).must(&["systemctl", "is-active", "dbus"]).expect("dbus").trim(), "active");
}
