#lang racket/base
; Runs inside a box, once per test; what it reads and writes is described in driver_javascript.js.
; A list is a list or a vector, a map a hash table, null is #f where the signature allows it.
(require racket/flonum racket/port racket/string)

(define tokens (list->vector (port->lines (current-input-port))))
(close-input-port (current-input-port))
(define channel (open-output-file "/proc/self/fd/3" #:exists 'append))
(define mark (vector-ref tokens 0))
(define file (vector-ref tokens 1))
(define entry (string->symbol (vector-ref tokens 2)))
(define at 3)
(define (from-hex text)
  (apply bytes (for/list ([i (in-range 0 (string-length text) 2)]) (string->number (substring text i (+ i 2)) 16))))
(define (value)
  (set! at (add1 at))
  (define token (vector-ref tokens at))
  (define rest (substring token 1))
  (case (string-ref token 0)
    [(#\n) #f]
    [(#\b) (string=? rest "1")]
    [(#\i) (string->number rest)]
    [(#\f) (floating-point-bytes->real (from-hex rest) #t)]
    [(#\s) (bytes->string/utf-8 (from-hex rest))]
    [(#\l) (for/list ([i (in-range (string->number rest))]) (value))]
    [else (for/hash ([i (in-range (string->number rest))]) (let ([key (value)]) (values key (value))))]))
(define arguments (for/list ([i (in-range (string->number (vector-ref tokens 3)))]) (value)))

(define (two-digits byte)
  (string-append (if (< byte 16) "0" "") (number->string byte 16)))
(define (hex data)
  (string-append* (for/list ([byte (in-bytes data)]) (two-digits byte))))
(define (encoded found depth)
  (define (part item) (encoded item (add1 depth)))
  (cond
    [(> depth 200) "[\"O\",\"too deep\"]"]
    [(boolean? found) (if found "[\"b\",1]" "[\"b\",0]")]
    [(exact-integer? found) (string-append "[\"i\",\"" (number->string found 16) "\"]")]
    [(and (rational? found) (exact? found)) (part (real->double-flonum found))] ; 5/2, where no float was asked for
    [(flonum? found) (string-append "[\"D\",\"" (hex (real->floating-point-bytes found 8 #t)) "\"]")]
    [(string? found) (string-append "[\"u\",\"" (hex (string->bytes/utf-8 found)) "\"]")]
    [(list? found) (string-append "[\"l\",[" (string-join (map part found) ",") "]]")]
    [(vector? found) (part (vector->list found))]
    [(hash? found)
     (define pairs (for/list ([(key item) (in-hash found)]) (string-append "[" (part key) "," (part item) "]")))
     (string-append "[\"d\",[" (string-join pairs ",") "]]")]
    [else "[\"O\",\"an object\"]"]))

(define (say kind text)
  (write-string (string-append mark "\n" kind text) channel)
  (close-output-port channel)
  (exit 0))
(define (failed kind error)
  (define text (if (exn? error) (exn-message error) "an exception"))
  (define cut (substring text 0 (min 500 (string-length text))))
  (say kind (string-append "\"" (regexp-replace* #px"[^ !#-\\[\\]-~]" cut "?") "\"")))

(define path (path->complete-path (string->path file)))
(define leave (exit-handler))
(define (finish . _)
  (parameterize ([exit-handler leave])
    (say "V" (encoded (apply (eval entry (module->namespace path)) arguments) 0))))
(with-handlers ([exn:fail:syntax? (lambda (error) (failed "C" error))]
                [exn:fail:read? (lambda (error) (failed "C" error))]
                [void (lambda (error) (failed "E" error))])
  (parameterize ([current-namespace (make-base-namespace)]
                 [exit-handler finish]) ; a program that ends itself is loaded as well
    (dynamic-require path #f)
    (finish)))
