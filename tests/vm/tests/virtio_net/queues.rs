//! Several queue pairs, over a TAP with as many queues, in a network namespace of the test's own.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::*;

const INSIDE: &str = "SHMBUS_TEST_INSIDE_NAMESPACE";
const PAIRS: u16 = 4;

/// The kernel's end of the TAP.
const KERNEL: &str = "10.78.0.1";
const STATION: &str = "10.78.0.2";

/// Runs this test again in fresh user and network namespaces, where it may make interfaces.
#[test]
fn traffic_goes_through_all_queue_pairs() -> Result<(), Error> {
    let Some(parts) = Parts::or_skip() else {
        return Ok(());
    };
    if std::env::var_os(INSIDE).is_some() {
        return inside(&parts);
    }
    let unshared = |command: &[&str]| {
        let output = Command::new("unshare").arg("-rn").args(command).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !unshared(&["true"]) {
        eprintln!("SKIPPED: `unshare -rn` does not work here: no user namespaces");
        return Ok(());
    }
    if !unshared(&[
        "ip",
        "tuntap",
        "add",
        "dev",
        "probe",
        "mode",
        "tap",
        "multi_queue",
    ]) {
        eprintln!(
            "SKIPPED: no TAP with several queues here: no iproute2, or no access to /dev/net/tun"
        );
        return Ok(());
    }
    let mut again = Command::new("unshare");
    again.arg("-rn").arg(std::env::current_exe().unwrap());
    again
        .args(["--exact", "queues::traffic_goes_through_all_queue_pairs"])
        .arg("--nocapture")
        .env(INSIDE, "1");
    assert!(again.process_group(0).status().unwrap().success());
    Ok(())
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

fn inside(parts: &Parts) -> Result<(), Error> {
    ip("tuntap add dev tap0 mode tap multi_queue");
    ip(&format!("address add {KERNEL}/24 dev tap0"));
    ip("link set tap0 up");
    let web = Web::serve(KERNEL, noise(100_000));
    for (qemu, kernel) in matrix() {
        for packed in ["off", "on"] {
            let vectors = 2 * PAIRS + 2;
            let guest = machine(parts, qemu, kernel)
                .file("/srv/file", web.file().to_vec())
                .netdev(&format!(
                    "tap,id=net,ifname=tap0,script=no,downscript=no,vhost=off,queues={PAIRS}"
                ))
                .device(&format!(
                    "{CARD},addr=2,netdev=net,mq=on,vectors={vectors},packed={packed}"
                ))
                .boot()?;
            let row = Interop::new(PEER, guest.name())
                .feature(format!("{PAIRS} queue pairs over a TAP"))
                .feature(format!("packed={packed}"));
            let fetched = fetch_often(&guest, packed, &web)?;
            let served = serve_often(&guest, packed, &web)?;
            row.figure("frames received, merged, sent by pair, files in", fetched)
                .figure("files out", served)
                .passed();
        }
    }
    Ok(())
}

fn net(packed: &str) -> String {
    let ring = if packed == "on" { "packed" } else { "split" };
    format!(
        "shmbus guest --pci 0000:00:02.0 net --address {STATION}/24 --queue-pairs {PAIRS} --ring {ring}"
    )
}

/// Each fetch is a connection of its own, and so a flow of its own.
fn fetch_often(guest: &Guest, packed: &str, web: &Web) -> Result<String, Error> {
    let text = guest.succeed_within(
        TRANSFER,
        &format!(
            "{} --receive-buffer 512 fetch {KERNEL}:{}/file --sink discard --seconds 5 --sha256 {}",
            net(packed),
            web.port(),
            sha256(web.file())
        ),
    )?;
    let told = Told { text };
    // A TAP, unlike QEMU's own network, takes partial checksums.
    for feature in ["mq", "csum", "guest-csum"] {
        assert!(told.has(feature), "{feature}: {}", told.text);
    }
    Ok(expect_all_pairs(&told))
}

fn serve_often(guest: &Guest, packed: &str, web: &Web) -> Result<String, Error> {
    let server = guest.start_command(&format!("{} serve /srv", net(packed)))?;
    server.wait_for("serving")?;
    for _ in 0..24 {
        let fetched = web::get((STATION, 80), "/file", TRANSFER);
        assert_eq!(sha256(&fetched), sha256(web.file()), "{}", server.output());
    }
    server.signal(15)?;
    let text = server.succeed_within(TRANSFER)?;
    Ok(expect_all_pairs(&Told { text }))
}

fn expect_all_pairs(told: &Told) -> String {
    let pairs: Vec<_> = (1..=PAIRS).map(|pair| told.pair(pair)).collect();
    let all = pairs
        .iter()
        .all(|[received, _, sent]| received.min(sent) > &0);
    assert!(all, "{}", told.text);
    // The command that makes several pairs of one is answered by the control queue's own vector.
    assert!(told.interrupts("control") > 0, "{}", told.text);
    assert_eq!(told.interrupts("shared"), 0, "{}", told.text);
    format!("{pairs:?}")
}
