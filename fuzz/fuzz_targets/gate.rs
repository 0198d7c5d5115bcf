//! The gate and the parser behind it: whatever a client sends as a document, the process lives and answers soon.
#![no_main]

use async_graphql::{Request, Variables};
use libfuzzer_sys::fuzz_target;
use sneaker_drop::{
    config::Limits,
    graphql::{Credentials, Gate},
};

fuzz_target!(|input: &str| {
    // Up to the first zero: the name of the operation, where there is one.
    let (name, document) = input.split_once('\0').map_or((None, input), |(name, rest)| (Some(name), rest));
    let mut request = Request::new(document).variables(Variables::default());
    request.operation_name = name.map(str::to_owned);
    let credentials = if document.len() % 2 == 0 { Credentials::Anonymous } else { Credentials::Rejected };
    if let Ok(admitted) = Gate::new(&Limits::default(), true).admit(request, &credentials) {
        assert_eq!(admitted.request.query, document, "the document is handed on as it came");
    }
});
