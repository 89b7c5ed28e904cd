printf new > t
sync t
mv t f
sync .
