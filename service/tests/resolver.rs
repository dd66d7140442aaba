//! What is published is read as it is, now; a DNS that cannot tell is told from one that has
//! nothing.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/src/dns.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod dns;

use dns::{Dns, Trouble};
use service::resolver::{Lookup, Published, Resolver};

async fn texts(resolver: &Resolver, name: &str) -> Published {
    let mut answers = resolver.look_up(vec![Lookup::Texts(name.to_owned())]).await;
    answers.pop().unwrap()
}

async fn aliases(resolver: &Resolver, name: &str) -> Published {
    let lookup = Lookup::Aliases(name.to_owned());
    resolver.look_up(vec![lookup]).await.pop().unwrap()
}

#[tokio::test]
async fn texts_are_joined_and_nothing_is_remembered() {
    let dns = Dns::start().await;
    let resolver = Resolver::new(&[dns.address]).unwrap();
    assert_eq!(
        texts(&resolver, "sel._domainkey.acme.test").await,
        Ok(vec![])
    );
    let long = format!("v=DKIM1; p={}", "A".repeat(700));
    dns.txt("sel._domainkey.acme.test", &long);
    assert_eq!(
        texts(&resolver, "sel._domainkey.acme.test").await,
        Ok(vec![long])
    );
    dns.txt("sel._domainkey.acme.test", "another");
    assert_eq!(
        texts(&resolver, "SEL._domainkey.acme.test")
            .await
            .unwrap()
            .len(),
        2
    );
    dns.withdraw("sel._domainkey.acme.test");
    assert_eq!(
        texts(&resolver, "sel._domainkey.acme.test").await,
        Ok(vec![])
    );
}

#[tokio::test]
async fn aliases_are_followed_and_loops_end() {
    let dns = Dns::start().await;
    let resolver = Resolver::new(&[dns.address]).unwrap();
    dns.cname("a.test", "B.test");
    dns.cname("b.test", "end.test");
    dns.txt("end.test", "v=spf1 -all");
    assert_eq!(
        aliases(&resolver, "a.test").await,
        Ok(vec!["b.test".to_owned(), "end.test".to_owned()])
    );
    assert_eq!(aliases(&resolver, "end.test").await, Ok(vec![]));
    assert_eq!(
        texts(&resolver, "a.test").await,
        Ok(vec!["v=spf1 -all".to_owned()])
    );
    dns.cname("x.test", "y.test");
    dns.cname("y.test", "x.test");
    assert_eq!(aliases(&resolver, "x.test").await.unwrap().len(), 2);
}

#[tokio::test]
async fn trouble_is_no_answer_and_holds_up_no_other_question() {
    let dns = Dns::start().await;
    let resolver = Resolver::new(&[dns.address]).unwrap();
    dns.txt("well.test", "here");
    dns.txt("sick.test", "unseen");
    dns.trouble("sick.test", Some(Trouble::ServFail));
    let lookups =
        ["well.test", "sick.test", "none.test"].map(|name| Lookup::Texts(name.to_owned()));
    let answers = resolver.look_up(lookups.to_vec()).await;
    assert_eq!(answers[0], Ok(vec!["here".to_owned()]));
    assert!(
        answers[1].as_ref().unwrap_err().contains("Server Failure"),
        "{answers:?}"
    );
    assert_eq!(answers[2], Ok(vec![]));
    dns.trouble("sick.test", Some(Trouble::Silence));
    let silent = texts(&resolver, "sick.test").await;
    assert_eq!(silent, Err("no answer in time".to_owned()));
    dns.trouble("sick.test", None);
    assert_eq!(
        texts(&resolver, "sick.test").await,
        Ok(vec!["unseen".to_owned()])
    );
    assert!(texts(&resolver, &"x".repeat(70)).await.is_err());
    assert!(texts(&Resolver::offline(), "well.test").await.is_err());
}

#[tokio::test]
async fn waiting_for_ones_turn_is_no_answer() {
    let dns = Dns::start().await;
    let resolver = Resolver::new(&[dns.address]).unwrap();
    dns.txt("well.test", "here");
    dns.trouble("slow.test", Some(Trouble::Silence));
    // Twice as many as are asked at once, each for as long as a query may take.
    let slow = resolver.look_up(vec![Lookup::Texts("slow.test".to_owned()); 128]);
    let well = texts(&resolver, "well.test");
    let (slow, well) = tokio::join!(slow, well);
    assert!(slow.iter().all(Result::is_err));
    assert_eq!(well, Ok(vec!["here".to_owned()]));
}
