//! A place that nobody should ask for anything.

use std::sync::{Arc, Mutex};

use tests::place;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An HTTP server that notes every connection, also those on which nothing is asked.
pub(crate) struct Trap {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<String>>>,
    page: Arc<Mutex<String>>,
}

impl Trap {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(place::free_address()).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, page) = (Arc::default(), Arc::default());
        let trap = Self { url, asked, page };
        let (asked, page) = (trap.asked.clone(), trap.page.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let page = page.lock().unwrap().clone();
                tokio::spawn(note(stream, asked.clone(), page));
            }
        });
        trap
    }

    /// What `/control` answers from now on.
    pub(crate) fn show(&self, html: &str) {
        html.clone_into(&mut self.page.lock().unwrap());
    }

    pub(crate) fn forget(&self) {
        self.asked.lock().unwrap().clear();
    }

    /// Paths; empty for a connection that said nothing yet.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn note(mut stream: TcpStream, asked: Arc<Mutex<Vec<String>>>, page: String) {
    let place = {
        let mut asked = asked.lock().unwrap();
        asked.push(String::new());
        asked.len() - 1
    };
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(octet) => head.push(octet),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let body = match path.as_str() {
        "/control" => page,
        _ => String::new(),
    };
    if let Some(one) = asked.lock().unwrap().get_mut(place) {
        *one = path;
    }
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let _browser_may_be_gone = stream.write_all(answer.as_bytes()).await;
}
