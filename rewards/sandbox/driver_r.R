# Runs inside a box, once per test; what it reads and writes is described in driver_javascript.js.
# A number is a vector of one, so a list of one may come as its item; NULL is the empty vector; every number is a float.
local(envir = new.env(parent = baseenv()), {  # where an answer's names are not looked up
  tokens <- readLines(file("stdin"), warn = FALSE)
  mark <- tokens[1]
  at <- 4
  channel <- file("/proc/self/fd/3", "wb", raw = TRUE)
  is_list <- is.list; is_object <- is.object; names_of <- names; kind_of <- typeof; join <- paste0; size <- length
  bytes_of <- writeBin; to_utf8 <- enc2utf8; raw_of <- charToRaw; text_of <- as.character; missing_of <- is.na
  not_number <- is.nan; leave <- quit; message_of <- conditionMessage; element <- .subset2; no_names <- unname

  from_hex <- function(text) as.raw(strtoi(substring(text, seq(1, nchar(text), 2), seq(2, nchar(text), 2)), 16L))
  value <- function() {
    at <<- at + 1
    tag <- substr(tokens[at], 1, 1)
    rest <- substring(tokens[at], 2)
    if (tag == "n") return(NULL)
    if (tag == "b") return(rest == "1")
    if (tag == "i") return(as.numeric(rest))
    if (tag == "f") return(readBin(from_hex(rest), "double", endian = "big"))
    if (tag == "s") {
      text <- if (rest == "") "" else rawToChar(from_hex(rest))
      Encoding(text) <- "UTF-8"
      return(text)
    }
    count <- as.integer(rest)
    out <- vector("list", count)
    keys <- character(count)
    plain <- tag == "l" && count > 0
    for (i in seq_len(count)) {
      if (tag == "d") keys[i] <- value()
      plain <- plain && !grepl("^[nld]", tokens[at + 1])
      out[i] <- list(value())
    }
    if (tag == "d") return(stats::setNames(out, keys))
    if (count == 0) NULL else if (plain) unlist(out) else out
  }
  values <- lapply(seq_len(as.integer(tokens[4])), function(i) value())

  hex <- function(data) join(text_of(data), collapse = "")
  scalar <- function(one, kind) {
    if (kind == "logical") return(if (missing_of(one)) '["N"]' else if (one) '["b",1]' else '["b",0]')
    if (missing_of(one) && !(kind == "double" && not_number(one))) return('["N"]')
    if (kind == "character") return(join('["u","', hex(raw_of(to_utf8(one))), '"]'))
    if (kind %in% c("integer", "double")) return(join('["D","', hex(bytes_of(one + 0, raw(), endian = "big")), '"]'))
    join('["O","', kind, '"]')
  }
  encoded <- function(found, depth) {
    if (depth > 200) return('["O","too deep"]')
    if (is.null(found)) return('["N"]')
    kind <- kind_of(found)
    if (is_object(found) || !(kind %in% c("list", "logical", "integer", "double", "character"))) return('["O","an object"]')
    keys <- names_of(found)
    if (kind != "list" && is.null(keys) && size(found) == 1) return(scalar(no_names(found), kind))
    parts <- character(size(found))
    for (i in seq_along(parts)) {
      item <- element(found, i)
      parts[i] <- if (kind == "list") encoded(item, depth + 1) else scalar(item, kind)
      if (!is.null(keys)) parts[i] <- join("[", scalar(keys[i], "character"), ",", parts[i], "]")
    }
    join(if (is.null(keys)) '["l",[' else '["d",[', join(parts, collapse = ","), "]]")
  }
  say <- function(kind, text) {
    writeBin(raw_of(join(mark, "\n", kind, text)), channel)
    close(channel)
    leave("no", 0, FALSE)
  }
  failed <- function(kind, error) {
    text <- gsub('[^ !#-\\[\\]-~]', "?", substr(message_of(error), 1, 500), perl = TRUE)
    say(kind, join('"', text, '"'))
  }

  program <- tryCatch(parse(tokens[2], keep.source = FALSE, encoding = "UTF-8"), error = function(error) failed("C", error))
  returned <- tryCatch({
    eval(program, globalenv())
    encoded(do.call(get(tokens[3], globalenv(), mode = "function"), values, quote = TRUE), 0)
  }, error = function(error) failed("E", error))
  say("V", returned)
})
