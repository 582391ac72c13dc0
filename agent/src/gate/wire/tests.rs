use std::io::IoSlice;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

async fn pair() -> (Wire, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    (Wire::new(ours.expect("connected")), theirs.expect("accepted").0)
}

#[tokio::test]
async fn parts_arrive_whole_and_in_order_whether_they_are_put_together_or_not() {
    for sizes in
        [vec![], vec![5], vec![0, 0, 7], vec![200, 34], vec![1000, 24], vec![1000, 25], vec![300, 90_000, 1, 500_000]]
    {
        let (mut wire, mut theirs) = pair().await;
        let parts: Vec<Vec<u8>> = sizes.iter().zip(b'a'..).map(|(size, letter)| vec![letter; *size]).collect();
        let whole = parts.concat();
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).await.expect("read");
            got
        });
        let mut written = 0;
        while written < whole.len() {
            // As one does who writes buffers: what is left of each, those that are done as empty ones.
            let mut done = written;
            let left = parts.iter().map(|part| {
                let skipped = done.min(part.len());
                done -= skipped;
                IoSlice::new(&part[skipped..])
            });
            written += wire.write_vectored(&left.collect::<Vec<_>>()).await.expect("written");
        }
        wire.shutdown().await.expect("ended");
        assert!(reading.await.expect("heard") == whole, "{sizes:?}");
    }
}
