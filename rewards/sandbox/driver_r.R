# Runs inside a box, once per test; what it reads and writes is described in driver_javascript.js.
# A number is a vector of one, so a list of one may come as its item; NULL is the empty vector; every number is a float.
# The first argument of this program is the type that is returned: names belong to a map and not to a list, and a matrix
# is a list of its rows.
local(envir = new.env(parent = baseenv()), {  # where an answer's names are not looked up
  tokens <- readLines(file("stdin"), warn = FALSE)
  mark <- tokens[1]
  returns <- commandArgs(TRUE)[1]
  at <- 4
  channel <- file("/proc/self/fd/3", "wb", raw = TRUE)
  is_list <- is.list; is_object <- is.object; names_of <- names; kind_of <- typeof; join <- paste0; size <- length
  bytes_of <- writeBin; to_utf8 <- enc2utf8; raw_of <- charToRaw; text_of <- as.character; missing_of <- is.na
  not_number <- is.nan; leave <- quit; message_of <- conditionMessage; element <- .subset2; bare <- as.vector
  ends <- endsWith; starts <- startsWith; part <- substr; width <- nchar; shape <- dim; is_table <- is.table
  plain_of <- unclass

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

  cut <- function(text, first, last) part(text, first, width(text) - last)
  hex <- function(data) join(text_of(data), collapse = "")
  scalar <- function(one, kind) {
    if (kind == "logical") return(if (missing_of(one)) '["N"]' else if (one) '["b",1]' else '["b",0]')
    if (missing_of(one) && !(kind == "double" && not_number(one))) return('["N"]')
    if (kind == "character") return(join('["u","', hex(raw_of(to_utf8(one))), '"]'))
    if (kind %in% c("integer", "double")) return(join('["D","', hex(bytes_of(one + 0, raw(), endian = "big")), '"]'))
    join('["O","', kind, '"]')
  }
  encoded <- function(found, declared, depth) {
    if (depth > 200) return('["O","too deep"]')
    if (ends(declared, "?")) return(if (is.null(found)) '["N"]' else encoded(found, cut(declared, 1, 1), depth))
    a_list <- ends(declared, "[]")
    a_map <- !a_list && starts(declared, "map[")
    item_type <- if (a_list) cut(declared, 1, 2) else if (a_map) cut(declared, 5, 1) else ""
    if (is.null(found)) return(if (a_map) '["d",[]]' else '["N"]')
    keys <- names_of(found)
    if (is_table(found) && size(shape(found)) == 1) found <- plain_of(found)
    kind <- kind_of(found)
    if (is_object(found) || !(kind %in% c("list", "logical", "integer", "double", "character"))) return('["O","an object"]')
    sides <- shape(found)
    if (a_list && size(sides) == 2 && (ends(item_type, "[]") || !any(sides == 1))) {
      if (!ends(item_type, "[]")) return('["O","a matrix"]')
      return(join('["l",[', rows(found, sides, item_type, depth), "]]"))
    }
    if (!a_list && !a_map && kind != "list" && size(found) == 1) return(scalar(bare(found), kind))
    if (a_map && is.null(keys) && size(found) > 0) return('["O","a list without names"]')
    parts <- character(size(found))
    for (i in seq_along(parts)) {
      item <- element(found, i)
      parts[i] <- if (kind == "list") encoded(item, item_type, depth + 1) else scalar(item, kind)
      if (a_map) parts[i] <- join("[", scalar(keys[i], "character"), ",", parts[i], "]")
    }
    join(if (a_map) '["d",[' else '["l",[', join(parts, collapse = ","), "]]")
  }
  rows <- function(found, sides, declared, depth) {
    parts <- character(sides[1])
    for (i in seq_along(parts)) parts[i] <- encoded(bare(found[i, ]), declared, depth + 1)
    join(parts, collapse = ",")
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
  finish <- function() {
    say("V", encoded(do.call(get(tokens[3], globalenv(), mode = "function"), values, quote = TRUE), returns, 0))
  }
  # a program that ends itself is loaded as well
  assign(".Last", function() tryCatch({
    rm(".Last", envir = globalenv())
    finish()
  }, error = function(error) failed("E", error)), globalenv())
  tryCatch({
    eval(program, globalenv())
    rm(".Last", envir = globalenv())
    finish()
  }, error = function(error) failed("E", error))
})
